"""Texts in rows, as data sets are handed on: Parquet, and JSON with one object a line. Read row by row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from libcore.messages import one_line
from libcore.regular_files import reason_of, refuse_irregular
from models.git_lfs import refuse_lfs_pointer
from models.transformer.vocabulary import TextError

COLUMN = "text"
"""What nearly every data set calls its texts."""
ROWS_AT_ONCE = 512
LONGEST_ROW = 2**28
"""Bytes of one line of JSON."""


def rows_of(path: Path, largest: int) -> Iterator[str]:
    """The texts of one file, each with a line break at its end; rows without a text are left out.

    Args:
        largest: bytes of a file, and characters of its texts, that there is room for.

    Raises TextError.
    """
    try:
        refuse_irregular(path, largest)
        refuse_lfs_pointer(path, TextError)
        n_characters = 0
        for text in ROWS[path.suffix](path):
            n_characters += len(text) + 1
            if n_characters > largest:
                raise TextError(f"{path}: more than {largest} characters; expected at most so many")
            yield f"{text}\n"
    except OSError as error:
        raise TextError(f"{path}: {reason_of(error)}; expected texts in rows") from error


def parquet_rows(path: Path) -> Iterator[str]:
    """Of the column `text`, or of the only column of texts."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            column = text_column(path, file.schema_arrow)
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
                yield from (text for text in batch[column].to_pylist() if text is not None)
    except (pyarrow.ArrowException, OSError) as error:
        raise TextError(f"{path}: cannot be read as Parquet ({one_line(error)})") from error


def text_column(path: Path, schema: Any) -> str:
    """The name of the column that is read; raises TextError where it is not clear which."""
    from pyarrow import types

    texts = [field.name for field in schema if types.is_string(field.type) or types.is_large_string(field.type)]
    if COLUMN in texts:
        return COLUMN
    if len(texts) == 1:
        return texts[0]
    found = one_line(", ".join(f"{field.name} ({field.type})" for field in schema) or "none")
    raise TextError(
        f"{path}: {len(texts)} columns of texts; expected one, or one that is called {COLUMN}, found {found}"
    )


def json_rows(path: Path) -> Iterator[str]:
    """What each line's object has as `text`."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_ROW):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TextError(f"{path}: line {number} is no JSON ({one_line(error)})") from error
            if not isinstance(row, dict) or not isinstance(row.get(COLUMN), str):
                keys = one_line(", ".join(row)) or "none" if isinstance(row, dict) else "no object"
                raise TextError(f'{path}: line {number} has no text; expected the key "{COLUMN}", found {keys}')
            yield row[COLUMN]


ROWS: dict[str, Callable[[Path], Iterator[str]]] = {".parquet": parquet_rows, ".jsonl": json_rows}
"""By a file's suffix."""
