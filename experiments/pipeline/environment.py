"""What a run was carried out with: the code's version, the libraries', and the hardware."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from libcore import processes

DISTRIBUTION = "local-interaction-basis"
SOURCES = Path(__file__).resolve().parents[2]


def environment(device: torch.device) -> dict[str, Any]:
    """Commit (with `+changes` where files differ from it; None outside a checkout), versions, hardware."""
    on_gpu = device.type == "cuda"
    return {
        "git_commit": own_commit(),
        "versions": {name: importlib.metadata.version(name) for name in (DISTRIBUTION, "torch", "hydra-core")},
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes.number_started(),
    }


@cache
def own_commit() -> str | None:
    """Of the code that this process runs, as it is when first asked for: a sweep's later runs still run that code."""
    return git_commit(SOURCES)


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in `folder`, which is the checkout's root; None where there is none."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True, timeout=10)
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def processor() -> str:
    """The processor's name, as Linux tells it, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
