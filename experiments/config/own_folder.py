"""The folder of a command's `--out` is the command's own: nothing of anybody else's is written over in it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from experiments.config.run_directory import TRACKED
from experiments.pipeline.json_files import write_json
from models.errors import UserError
from models.whole_files import foreign_files

WRITTEN = "written.json"
"""Which files of the folder commands wrote, as relative paths."""


@contextmanager
def own_folder(folder: Path, option: str, of_a_sweep: bool = False) -> Generator[None, None, None]:
    """Within the block, files that no earlier command wrote there are not replaced; at its end, what it wrote is noted.

    Raises UserError for a folder that holds files none of which is a command's. One `of_a_sweep` holds its record.
    """
    if not of_a_sweep:
        refuse_foreign_folder(folder, option)
    found, noted = files_of(folder), written_there(folder)
    foreign = found - noted if noted or not of_a_sweep else set()
    token = foreign_files.set(foreign_files.get() | {(folder / name).absolute() for name in foreign})
    try:
        yield
    finally:
        foreign_files.reset(token)
        if written := files_of(folder) - foreign - {WRITTEN}:
            write_json(folder / WRITTEN, {"files": sorted(written)})


def refuse_foreign_folder(folder: Path, option: str) -> None:
    """Raises UserError for a folder with files that no command wrote, or one in which a link leads elsewhere."""
    if not folder.is_dir():
        return
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir() and TRACKED not in path.relative_to(folder).parts:
            raise UserError(f"{option} {folder}: {path.name} in it leads elsewhere; expected a folder without links")
    if not (folder / WRITTEN).is_file() and (found := sorted(path.name for path in folder.iterdir())):
        raise UserError(
            f"{option} {folder}: holds {found[0]}, which no command wrote; expected an empty or a new folder"
        )


def written_there(folder: Path) -> set[str]:
    """What earlier commands noted."""
    try:
        files = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))["files"]
        return {*map(str, files), WRITTEN}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def files_of(folder: Path) -> set[str]:
    """All files below, as relative paths; none where there is no such folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
