"""Where `conf/` lies; by itself, for those who read it without Hydra."""

from __future__ import annotations

from pathlib import Path

CONFIG_DIRECTORY = Path(__file__).resolve().parents[2] / "conf"
