"""The texts of language models by what the configuration says of them, each read and cut once per process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from models.errors import UserError
from models.transformer.text import Cut, TextData, read_text, split_text
from models.transformer.vocabulary import (
    Encoding,
    TextError,
    encode_byte_pairs,
    encode_characters,
    encode_pretrained,
)

Tokens = tuple[Literal["character"]] | tuple[Literal["bpe"], int] | tuple[Literal["pretrained"], Path]
"""What a text is cut into: characters, byte pairs (with the size of their vocabulary), or a folder's own tokens."""


def text_data(path: str | None, tokens: Tokens, cut: Cut) -> TextData:
    """The text of `data.path` as sequences. Raises UserError for one that is missing or does not suit the model."""
    return cut_once(path, stamps(path), tokens, cut)


def stamps(path: str | None) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of a text's files, so that a text that has changed is read again."""
    if path is None:
        return ()
    folder = Path(path)
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else [folder]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())


@lru_cache(maxsize=8)
def cut_once(path: str | None, stamps: tuple[tuple[str, int, int], ...], tokens: Tokens, cut: Cut) -> TextData:
    """`text_data` of files that have not changed."""
    encoding = encoded_once(path, stamps, tokens)
    if cut.beginning_of_sequence and encoding.beginning_of_sequence is None:
        raise UserError("model.beginning_of_sequence=true: the model names no such token; expected false")
    try:
        return split_text(encoding, cut)
    except TextError as error:
        raise UserError(f"data.path={'null' if path is None else path}: {error}") from error


@lru_cache(maxsize=4)
def encoded_once(path: str | None, stamps: tuple[tuple[str, int, int], ...], tokens: Tokens) -> Encoding:
    """The whole text as tokens."""
    try:
        text = read_text(None if path is None else Path(path))
    except TextError as error:
        raise UserError(f"data.path={error}") from error
    try:
        match tokens:
            case ("bpe", size):
                return encode_byte_pairs(text, size)
            case ("pretrained", folder):
                return encode_pretrained(text, folder)
            case _:
                return encode_characters(text)
    except TextError as error:
        raise UserError(f"model.{'name=' if tokens[0] == 'pretrained' else ''}{error}") from error
