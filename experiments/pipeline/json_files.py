"""JSON and text, each file written whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from models.whole_files import written_whole


def write_json(path: Path, content: Any) -> None:
    """JSON, indented; numbers that JSON has no word for (NaN) become null."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_text(path: Path, content: str) -> None:
    """A text file in UTF-8."""
    with written_whole(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def finite(content: Any) -> Any:
    """The same content with NaN and infinities as None."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
