"""The texts of language models by what the configuration says of them, each read and cut once per process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

from models.errors import UserError
from models.transformer.text import Cut, TextData, files_of, pieces, split_text
from models.transformer.token_files import is_token_file, mapped_tokens
from models.transformer.vocabulary import (
    Encoding,
    TextError,
    encode_byte_pairs,
    encode_characters,
    encode_pretrained,
    read_tokenizer,
    vocabulary_of,
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
    files = [file for file in files_of(Path(path)) if file.is_file()]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


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
    place = None if path is None else Path(path)
    if is_token_file(place):
        return tokenised_before(place, tokens)
    parts = parts_of(place)
    try:
        match tokens:
            case ("bpe", size):
                return encode_byte_pairs("".join(parts), size)
            case ("pretrained", folder):
                return encode_pretrained(parts, folder)
            case _:
                return encode_characters("".join(parts))
    except TextError as error:
        raise UserError(f"model.{'name=' if tokens[0] == 'pretrained' else ''}{error}") from error


def parts_of(path: Path | None) -> Iterator[str]:
    """`pieces`, whose errors are told as such of the text, whatever goes through them; raises UserError."""
    try:
        yield from pieces(path)
    except TextError as error:
        raise UserError(f"data.path={error}") from error


def tokenised_before(path: Path, tokens: Tokens) -> Encoding:
    """A file of tokens, with the vocabulary of the model that they are of; raises UserError."""
    if tokens[0] != "pretrained":
        raise UserError(f"data.path={path}: tokens without their texts, which this model learns from; expected a text")
    folder = tokens[1]
    try:
        mapped = mapped_tokens(path)
    except TextError as error:
        raise UserError(f"data.path={error}") from error
    try:
        return Encoding(mapped, *vocabulary_of(read_tokenizer(folder), folder))
    except TextError as error:
        raise UserError(f"model.name={error}") from error
