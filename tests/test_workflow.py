"""Continuous integration runs what contributors run, on the versions that the project says it works with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load(TEXT)
STEPS = WORKFLOW["jobs"]["test"]["steps"]
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def test_commands_are_the_contributors():
    commands = [step["run"] for step in STEPS if step.get("run", "").startswith("make")]
    assert commands == ["make lint", "make test"]
    assert all(re.search(rf"^{command.removeprefix('make ')}:", MAKEFILE, re.MULTILINE) for command in commands)


def test_all_python_versions_that_the_project_admits():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    admitted = SpecifierSet(project["requires-python"])
    versions = [f"3.{minor}" for minor in range(40) if admitted.contains(f"3.{minor}.0")]
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    assert f"Python {versions[0]} to {versions[-1]} is needed" in MAKEFILE


def test_little_is_permitted():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in WORKFLOW["jobs"]["test"]
    assert "secrets." not in TEXT
    uses = [step["uses"] for step in STEPS if "uses" in step]
    assert [one for one in uses if not re.fullmatch(r"actions/[a-z-]+@v\d+", one)] == []
    assert "http" not in TEXT
