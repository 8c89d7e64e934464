"""The tested versions are written down, and are among those that the project says it works with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
LINES = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_constraints_are_names_and_versions_alone() -> None:
    assert len(LINES) > 50
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    names = [canonicalize_name(line.partition("==")[0]) for line in LINES]
    assert len(set(names)) == len(names)


def test_every_requirement_is_locked_within_its_range() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}
    extras = [text for extra in project["optional-dependencies"].values() for text in extra]
    requirements = [Requirement(text) for text in (*project["dependencies"], *extras)]
    requirements = [requirement for requirement in requirements if requirement.name != project["name"]]
    assert len(requirements) > 20
    for requirement in requirements:
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"
