"""Things in a cache removed: never what a process uses, never a file that is not the cache's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.pipeline.cache_contents import Kept
from experiments.pipeline.cache_entry import remove_files
from models.in_use import unused
from models.whole_files import is_own_file, is_own_folder

GONE, WOULD_GO = "removed", "would be removed"


def to_prune(
    contents: Sequence[Kept], used_by: Mapping[str, Sequence[Path]], only_unused: bool, older_than: float | None
) -> list[Kept]:
    """What is to go: of a certain age in days, and used by no finished run, where these are asked for.

    An interrupted training, which no finished run can have used, goes by its age alone; what was left by processes that
    were killed always goes.
    """
    chosen: list[Kept] = []
    for kept in contents:
        if kept.kind == "foreign":
            continue
        is_old = older_than is None or kept.days >= older_than
        is_unused = not only_unused or not used_by.get(kept.name)
        may_go = older_than is not None if kept.kind == "training" else True
        if kept.kind == "temporary" or (is_old and is_unused and may_go):
            chosen.append(kept)
    return chosen


def prune(kept: Kept, cache: Path, dry_run: bool) -> str:
    """Remove it unless it is in use; what came of it, in a word or two."""
    with ExitStack() as stack:
        if kept.lock is not None and kept.lock.is_file() and is_own_file(kept.lock):
            try:
                stack.enter_context(FileLock(kept.lock).acquire(timeout=0))
            except Timeout:
                return "kept: a run is computing it"
        # Of a folder its own lock tells whether a run has read it; files are the whole cache's.
        if not stack.enter_context(unused(kept.path if kept.kind == "stage" else cache)):
            return "kept: a run uses it"
        if dry_run:
            return WOULD_GO
        if is_own_folder(kept.path):
            return GONE if remove_files(kept.path) else "kept: holds files that are not the cache's"
        kept.path.unlink(missing_ok=True)
        return GONE
