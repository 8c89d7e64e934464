"""Imports of the project's own modules: one way between the packages, no circle between the modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("libcore", "models", "experiments")
"""Each may import those before it."""


def module_names(root: Path) -> dict[str, Path]:
    """The file of every module below `root`, by its dotted name; a package is called without `__init__`."""
    files = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported_names(tree: ast.AST, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every import statement of a module in `package`, those in functions too: a module and the names from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module, tuple(alias.name for alias in node.names)


def own_imports(tree: ast.AST, module: str, files: Mapping[str, Path]) -> set[str]:
    """The project's modules that a module imports; a name that is a module counts as itself, not as its package."""
    is_package = files[module].name == "__init__.py"
    package = module if is_package else module.rpartition(".")[0]
    found: set[str] = set()
    for name, members in imported_names(tree, package):
        modules = {f"{name}.{member}" for member in members} & set(files)
        if name in files and (len(modules) < len(members) or not members):
            modules.add(name)
        found |= modules
    return found - {module}


def imports_below(root: Path) -> dict[str, set[str]]:
    """By module, the project's modules that it imports, anywhere in its source."""
    files = module_names(root)
    return {name: own_imports(ast.parse(file.read_text("utf-8")), name, files) for name, file in files.items()}


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """The modules of a circle, the first one again at the end; nothing where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def against_the_arrows(imports: Mapping[str, set[str]]) -> list[str]:
    """`importer -> imported`, where a package imports one that may import it."""
    place = {package: number for number, package in enumerate(PACKAGES)}
    return [
        f"{importer} -> {imported}"
        for importer, all_imported in imports.items()
        for imported in sorted(all_imported)
        if place[imported.partition(".")[0]] > place[importer.partition(".")[0]]
    ]


def hidden_imports(tree: ast.AST, module: str, files: Mapping[str, Path]) -> set[str]:
    """The project's modules that are imported for type checkers alone."""
    branches = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return set().union(*(own_imports(branch, module, files) for branch in branches))


def test_no_circle() -> None:
    imports = imports_below(REPOSITORY)
    assert len(imports) > 150
    assert "libcore.statistics" in imports["libcore.graph"]
    assert circle_in(imports) == []


def test_arrows_point_one_way() -> None:
    assert against_the_arrows(imports_below(REPOSITORY)) == []


def test_no_import_is_hidden_from_python() -> None:
    files = module_names(REPOSITORY)
    hidden = {name: hidden_imports(ast.parse(file.read_text("utf-8")), name, files) for name, file in files.items()}
    assert {name: found for name, found in hidden.items() if found} == {}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One module in each package, each importing as it may."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "libcore" / "a.py").write_text("import math\nfrom libcore.b import x\n")
    (tmp_path / "libcore" / "b.py").touch()
    (tmp_path / "models" / "c.py").write_text("import libcore.a\n")
    (tmp_path / "experiments" / "d.py").write_text("def f():\n    from models import c\n    from . import e\n")
    (tmp_path / "experiments" / "e.py").touch()
    return tmp_path


class TestOfAProjectMadeForIt:
    def test_imports_are_found_wherever_they_stand(self, project):
        assert {name: found for name, found in imports_below(project).items() if found} == {
            "libcore.a": {"libcore.b"},
            "models.c": {"libcore.a"},
            "experiments.d": {"models.c", "experiments.e"},
        }
        assert circle_in(imports_below(project)) == []
        assert against_the_arrows(imports_below(project)) == []

    @pytest.mark.parametrize(
        "source",
        ["import libcore.a\n", "from libcore import a\n", "from . import a\n", "def f():\n    from .a import x\n"],
    )
    def test_a_circle(self, project, source):
        (project / "libcore" / "b.py").write_text(source)
        assert set(circle_in(imports_below(project))) == {"libcore.a", "libcore.b"}

    def test_an_arrow_that_points_back(self, project):
        (project / "libcore" / "b.py").write_text("def f():\n    from experiments import d\n")
        assert against_the_arrows(imports_below(project)) == ["libcore.b -> experiments.d"]

    @pytest.mark.parametrize("name", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
    def test_a_hidden_import(self, project, name):
        tree = ast.parse(f"import typing\nif {name}:\n    from libcore import b\n    import torch\n")
        assert hidden_imports(tree, "libcore.a", module_names(project)) == {"libcore.b"}
