"""What the results of somebody's own code depend on: its source, and that of what it imports of its own.

Libraries and this project's packages are told apart by where they lie; their versions are no matter of a file's.
"""

from __future__ import annotations

import ast
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from models.content_hashes import file_hash

PACKAGES = ("experiments", "libcore", "models")
"""This project's, whose source is hashed by their names."""
LIBRARIES = (*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["stdlib"])
"""Folders of Python's own modules and of installed packages."""


def look_in_current_folder() -> None:
    """Let modules in the folder that the user stands in be imported, as `python -m` does and a console script does not.

    Last, so that nothing in it is taken for a library of that name.
    """
    if "" not in sys.path and (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)


def imported_sources(module: str) -> dict[str, str]:
    """Hash of the source by name, of a module and of all that it imports, itself or by others, of the same origin.

    A module of an installed package is followed within that package, one of this project's not at all.
    """
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = source_of(name) if name not in sources and is_own(name, module) else None
        if path is None:
            continue
        sources[name] = file_hash(path)
        waiting += imported_names(path, name)
    return dict(sorted(sources.items()))


def source_of(name: str) -> Path | None:
    """A module's file, None for what is no module, or not written in Python."""
    spec = spec_of(name)
    file = None if spec is None else spec.origin
    return Path(file).resolve() if file is not None and file.endswith(".py") else None


def spec_of(name: str) -> ModuleSpec | None:
    """Where a module lies; None for an attribute of a module, or a package that is not there."""
    if (loaded := sys.modules.get(name)) is not None:
        return loaded.__spec__
    try:
        return importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None


def is_own(name: str, module: str) -> bool:
    """Whether a module is of `module`'s package, or of one that is neither a library nor this project's.

    Asked of the package first: to look into a library's, Python would import it.
    """
    package = name.partition(".")[0]
    spec = spec_of(package)
    if package in PACKAGES or spec is None:
        return False
    places = [spec.origin] if spec.has_location else (spec.submodule_search_locations or ())
    files = [Path(place).resolve() for place in places if place is not None]
    of_a_library = any(file.is_relative_to(library.resolve()) for file in files for library in map(Path, LIBRARIES))
    return bool(files) and (package == module.partition(".")[0] or not of_a_library)


def imported_names(path: Path, name: str) -> Iterator[str]:
    """Everything that may be a module in a file's imports, wherever in the file they stand."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = importlib.util.resolve_name("." * node.level + base, package)
                except ImportError:  # beyond the package: never carried out, or it would have failed
                    continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
