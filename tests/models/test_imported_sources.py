"""The source of somebody's own code: its files and what they import, no library's and none of the project's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.imported_sources import imported_sources

FILES = {
    "own_method.py": "import numpy.linalg, own_helper, xml.dom.minidom\nfrom own_package import part, CONSTANT\n"
    "from models.errors import UserError\nimport never_installed\n",
    "own_helper.py": "def late():\n    import own_late\n",
    "own_late.py": "",
    "own_beside.py": "",
    "own_package/__init__.py": "CONSTANT = 1\n",
    "own_package/part.py": "from . import other\n",
    "own_package/other.py": "from ...beyond import nothing\nfrom .part import other\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    for name, source in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_what_is_imported_anywhere_in_it(folder):
    found = imported_sources("own_method")
    names = ["own_helper", "own_late", "own_method", "own_package", "own_package.other", "own_package.part"]
    assert list(found) == names


@pytest.mark.parametrize("name", ["own_helper.py", "own_late.py", "own_package/__init__.py", "own_package/other.py"])
def test_a_change_of_any_of_it_is_seen(folder, name):
    before = imported_sources("own_method")
    (folder / name).write_text(FILES[name] + "CONSTANT = 2\n")
    assert imported_sources("own_method") != before


def test_a_change_beside_it_is_not(folder):
    before = imported_sources("own_method")
    (folder / "own_beside.py").write_text("CONSTANT = 2\n")
    assert imported_sources("own_method") == before


def test_the_project_s_own_methods_are_hashed_elsewhere():
    assert imported_sources("libcore.methods.lib") == {}


def test_an_installed_package_is_followed_within_itself():
    found = imported_sources("omegaconf.omegaconf")
    assert {"omegaconf", "omegaconf.base"} <= set(found)
    assert {name.partition(".")[0] for name in found} == {"omegaconf"}
