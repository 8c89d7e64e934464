"""Text as sequences of tokens, for fitting and testing: read, cut and split so that no text is in both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from libcore.regular_files import reason_of, regular_text
from models.git_lfs import refuse_lfs_pointer
from models.memory import machine_memory
from models.transformer.documents import ROWS, rows_of
from models.transformer.vocabulary import Encoding, TextError

IN_FOLDERS = (".txt", *ROWS)
"""Suffixes of files that are read where a folder has them."""
SHUFFLED = 16
"""Bytes of one sequence's place in the shuffled order, twice."""


@dataclass(frozen=True)
class TextData:
    """Sequences of tokens, all of one length.

    Attributes:
        train: what a model is trained, and bases are fitted on.
        test: held-out sequences.
        vocabulary: for each token its text, spaces and line breaks included.
    """

    train: Int[Tensor, "example position"]
    test: Int[Tensor, "held_out position"]
    vocabulary: tuple[str, ...]

    def hash(self) -> str:
        """SHA-256 of tokens and vocabulary, as hexadecimal digits."""
        digest = hashlib.sha256("\0".join(self.vocabulary).encode("utf-8", "surrogatepass"))
        for split in (self.train, self.test):
            digest.update(f"{tuple(split.shape)}".encode())
            digest.update(split.to(torch.int64).contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Cut:
    """How tokens become sequences and splits.

    Attributes:
        sequence_length: tokens of one sequence, that of the beginning included.
        test_share: of all sequences, the share that is held out.
        split_seed: draws which sequences are held out, and their order.
        n_train: at most so many sequences of the training split; None for all.
        n_test: the same for the test split.
        beginning_of_sequence: whether the vocabulary's token for it stands before every sequence's text.
    """

    sequence_length: int
    test_share: float
    split_seed: int
    n_train: int | None = None
    n_test: int | None = None
    beginning_of_sequence: bool = False


def embedded_text() -> str:
    """Python's own reference, which every CPython brings along: nothing to fetch, the same for one Python version.

    Many topics are part of another; a paragraph that came before is left out, so that no text is in both splits.
    """
    from pydoc_data.topics import topics

    return "\n\n".join(without_repetitions(paragraph for text in topics.values() for paragraph in text.split("\n\n")))


def without_repetitions(paragraphs: Iterable[str]) -> list[str]:
    """The first of all paragraphs that differ in nothing but white space."""
    first: dict[str, str] = {}
    for paragraph in paragraphs:
        first.setdefault(" ".join(paragraph.split()), paragraph)
    return list(first.values())


def read_text(path: Path | None) -> str:
    """All that `pieces` has, as one text."""
    return "".join(pieces(path))


def pieces(path: Path | None) -> Iterator[str]:
    """A text in the parts that are tokenised each by itself: a text as a whole, data sets in rows.

    Args:
        path: a text file, one of rows (`documents.py`), or a folder of such files, of one kind and in the order of
            their names; None for the embedded text.

    Raises TextError for what is missing, empty, damaged or no UTF-8.
    """
    if path is None:
        yield embedded_text()
        return
    files = files_of(path)
    if not files:
        raise TextError(
            f"{path}: no {', '.join(IN_FOLDERS)} file in this folder; expected a UTF-8 text file, one of rows, or a "
            "folder of them"
        )
    of_rows, is_empty = files[0].suffix in ROWS, True
    parts = (row for file in files for row in rows_of(file, largest_text())) if of_rows else whole_texts(files)
    for part in parts:
        is_empty = is_empty and part.isspace()
        yield part
    if is_empty:
        raise TextError(f"{path}: empty; expected text")


def files_of(path: Path) -> list[Path]:
    """What of a path is read: the file itself, or those of a folder that are of the first kind that it has."""
    if not path.is_dir():
        return [path]
    return next((found for suffix in IN_FOLDERS if (found := sorted(path.glob(f"*{suffix}")))), [])


def whole_texts(files: list[Path]) -> Iterator[str]:
    """Text files as one text, if there is any in them."""
    text = "\n".join(read_file(file) for file in files)
    if text:
        yield text


def read_file(path: Path) -> str:
    """One UTF-8 file; raises TextError."""
    try:
        refuse_lfs_pointer(path, TextError)
        return regular_text(path, "utf-8-sig", largest=largest_text())
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: not UTF-8 (byte {error.start} is {error.object[error.start]:#04x})") from error
    except OSError as error:
        raise TextError(
            f"{path}: {reason_of(error)}; expected a UTF-8 text file, one of rows or tokens, or a folder of them"
        ) from error


def largest_text() -> int:
    """Bytes of a text whose tokens, eight bytes each, have room in memory, some four characters to a token."""
    return (machine_memory() or 2**40) // 4


def split_text(encoding: Encoding, cut: Cut) -> TextData:
    """Cut the tokens one sequence after the other, shuffle the sequences and hold a share of them out.

    Sequences do not overlap, and what is left at the end is dropped. Of a file that is mapped into memory, only those
    that are taken are read. Raises TextError for a text too short for one sequence in each split, for one too long to
    shuffle, for tokens beyond the vocabulary, and where a token for the beginning is asked for and there is none.
    """
    length = cut.sequence_length - int(cut.beginning_of_sequence)
    n = len(encoding.tokens) // length
    if n < 2:
        raise TextError(
            f"too short: {len(encoding.tokens)} tokens make {n} sequences of {cut.sequence_length}; "
            "expected at least one for each split"
        )
    if n > (most := largest_text() // SHUFFLED):
        raise TextError(f"{n} sequences of {cut.sequence_length} tokens; expected at most {most}")
    n_held_out = min(max(1, round(cut.test_share * n)), n - 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(cut.split_seed))
    held_out, rest = order[:n_held_out], order[n_held_out:]
    train, test = (sequences_of(encoding, cut, rows) for rows in (rest[: cut.n_train], held_out[: cut.n_test]))
    return TextData(train, test, encoding.vocabulary)


def sequences_of(encoding: Encoding, cut: Cut, rows: Int64[Tensor, " example"]) -> Int64[Tensor, "example position"]:
    """Those sequences, counted in the order of the text; raises TextError for tokens that there are not."""
    beginning = encoding.beginning_of_sequence if cut.beginning_of_sequence else None
    if cut.beginning_of_sequence and beginning is None:
        raise TextError("beginning_of_sequence=true: this tokenizer has no such token; expected false")
    length = cut.sequence_length - int(cut.beginning_of_sequence)
    n = len(encoding.tokens) // length
    taken = np.asarray(encoding.tokens)[: n * length].reshape(n, length)[rows.numpy()]
    sequences = torch.from_numpy(taken.astype(np.int64))
    smallest, largest = int(sequences.min()), int(sequences.max())
    if smallest < 0 or largest >= len(encoding.vocabulary):
        wrong = smallest if smallest < 0 else largest
        raise TextError(f"has token {wrong}; expected from 0 to {len(encoding.vocabulary) - 1}, those of the tokenizer")
    if beginning is not None:
        sequences = torch.cat([torch.full((len(rows), 1), beginning), sequences], dim=1)
    return sequences
