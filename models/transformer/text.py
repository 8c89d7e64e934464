"""Text as sequences of tokens, for fitting and testing: read, cut and split so that no text is in both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.regular_files import reason_of, regular_text
from models.memory import machine_memory
from models.transformer.vocabulary import Encoding, TextError


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
    """A text file, or all `.txt` files of a folder in the order of their names; without a path the embedded text.

    Raises TextError for what is missing, empty or no UTF-8.
    """
    if path is None:
        return embedded_text()
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise TextError(f"{path}: no .txt file in this folder; expected a UTF-8 text file, or a folder of .txt files")
    text = "\n".join(read_file(file) for file in files)
    if not text.strip():
        raise TextError(f"{path}: empty; expected text")
    return text


def read_file(path: Path) -> str:
    """One UTF-8 file; raises TextError."""
    try:
        return regular_text(path, "utf-8-sig", largest=largest_text())
    except UnicodeDecodeError as error:
        raise TextError(f"{path}: not UTF-8 (byte {error.start} is {error.object[error.start]:#04x})") from error
    except OSError as error:
        raise TextError(f"{path}: {reason_of(error)}; expected a UTF-8 text file, or a folder of .txt files") from error


def largest_text() -> int:
    """Bytes of a text whose tokens, eight bytes each, have room in memory, some four characters to a token."""
    return (machine_memory() or 2**40) // 4


def split_text(encoding: Encoding, cut: Cut) -> TextData:
    """Cut the tokens one sequence after the other, shuffle the sequences and hold a share of them out.

    Sequences do not overlap, and what is left at the end is dropped. Raises TextError for a text too short for one
    sequence in each split, and where a token for the beginning is asked for and there is none.
    """
    sequences = sequences_of(encoding, cut)
    if len(sequences) < 2:
        raise TextError(
            f"too short: {len(encoding.tokens)} tokens make {len(sequences)} sequences of {cut.sequence_length}; "
            "expected at least one for each split"
        )
    n_held_out = min(max(1, round(cut.test_share * len(sequences))), len(sequences) - 1)
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(cut.split_seed))
    held_out, rest = sequences[order[:n_held_out]], sequences[order[n_held_out:]]
    return TextData(rest[: cut.n_train], held_out[: cut.n_test], encoding.vocabulary)


def sequences_of(encoding: Encoding, cut: Cut) -> Int[Tensor, "example position"]:
    """All sequences in the order of the text; raises TextError if a token for the beginning is missing."""
    if cut.beginning_of_sequence and encoding.beginning_of_sequence is None:
        raise TextError("beginning_of_sequence=true: this tokenizer has no such token; expected false")
    length = cut.sequence_length - int(cut.beginning_of_sequence)
    n = len(encoding.tokens) // length
    sequences = encoding.tokens[: n * length].view(n, length)
    if cut.beginning_of_sequence:
        assert encoding.beginning_of_sequence is not None
        beginning = torch.full((n, 1), encoding.beginning_of_sequence, dtype=sequences.dtype)
        sequences = torch.cat([beginning, sequences], dim=1)
    return sequences
