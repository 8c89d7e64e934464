"""Packages as if they were installed in a temporary folder, gone again after the test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest


class Folder:
    """A folder on Python's path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def module(self, name: str, source: str) -> Path:
        """A module of the folder, imported anew by whoever imports it next."""
        file = self.path.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return file

    def entry_points(self, group: str, points: Mapping[str, str]) -> None:
        """The metadata of an installed package with these entry points, address by name."""
        metadata = self.path / "added-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
        lines = [f"[{group}]", *(f"{name} = {address}" for name, address in points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """An empty folder on Python's path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Folder(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
