"""From text to tokens: single characters, byte pairs learned from the text, or a pretrained model's own tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int, Int32, Integer
from torch import Tensor

from libcore.messages import one_line
from models.git_lfs import refuse_lfs_pointer
from models.transformer.configuration import TOKENIZER, ConfigurationError, beginning_of_sequence, description

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDS = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What byte pairs never reach across: a word, a number or signs with the space before them, other white space."""
CHARACTERS_AT_ONCE = 2**20
"""Of a text in parts: what a tokenizer says of each token takes a hundred times the token's own room."""
UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class TextError(ValueError):
    """A text that cannot be read, or does not suit the model."""


@dataclass(frozen=True)
class Encoding:
    """A text as tokens.

    Attributes:
        tokens: indices into the vocabulary, in memory or mapped from a file.
        vocabulary: for each token its text, spaces and line breaks included.
        beginning_of_sequence: the token that marks the beginning of a text, where there is one.
    """

    tokens: Int[Tensor, " token"] | Integer[np.ndarray, " token"]
    vocabulary: tuple[str, ...]
    beginning_of_sequence: int | None = None


def encode_characters(text: str) -> Encoding:
    """One token for each character that occurs, in the order of their code points."""
    vocabulary = tuple(sorted(set(text)))
    index = {character: token for token, character in enumerate(vocabulary)}
    return Encoding(torch.tensor([index[character] for character in text]), vocabulary)


def encode_byte_pairs(text: str, size: int) -> Encoding:
    """Byte-pair encoding learned from the text itself: all its characters, then the most frequent pairs.

    Args:
        text: what is encoded, and what the pairs are learned from.
        size: tokens of the vocabulary; fewer where the text has no more pairs.

    Raises:
        TextError: the text has more different characters than `size`.
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Split
    from tokenizers.trainers import BpeTrainer

    n_characters = len(set(text))
    if n_characters > size:
        raise TextError(
            f"vocabulary_size={size}: the text has {n_characters} different characters; expected at least that"
        )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Split(Regex(WORDS), behavior="isolated")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator([text], BpeTrainer(vocab_size=size, show_progress=False))
    by_token = {token: piece for piece, token in tokenizer.get_vocab().items()}
    vocabulary = tuple(by_token[token] for token in range(len(by_token)))
    return Encoding(torch.tensor(tokenizer.encode(text).ids), vocabulary)


def encode_pretrained(text: str | Iterable[str], folder: Path) -> Encoding:
    """By the tokenizer in a pretrained model's folder; adds no token at the beginning or end.

    Args:
        text: as a whole, or in parts that are tokenised each by itself, of which few are in memory at a time.

    Raises TextError where there is no tokenizer that can be read, or none that takes the text.
    """
    tokenizer = read_tokenizer(folder)
    parts = [text] if isinstance(text, str) else text
    tokens = [np.zeros(0, np.int32), *tokens_of(parts, tokenizer, folder)]
    return Encoding(torch.from_numpy(np.concatenate(tokens)), *vocabulary_of(tokenizer, folder))


def vocabulary_of(tokenizer: Tokenizer, folder: Path) -> tuple[tuple[str, ...], int | None]:
    """Each token's text, and the token that marks the beginning of a text; raises TextError."""
    try:
        beginning = beginning_of_sequence(folder, tokenizer.token_to_id)
    except ConfigurationError as error:
        raise TextError(str(error)) from error
    return token_texts(tokenizer), beginning


def tokens_of(parts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> Iterator[Int32[np.ndarray, " token"]]:
    """The tokens of a text's parts, some at a time; raises TextError."""
    for some in batches(parts):
        try:
            encodings = tokenizer.encode_batch_fast(some, add_special_tokens=False)
        # A plain Exception, of a tokenizer without a token for what it does not know.
        except Exception as error:
            raise TextError(f"{folder}: the tokenizer does not take the text ({one_line(error)})") from error
        yield from (np.array(encoding.ids, np.int32) for encoding in encodings)


def batches(parts: Iterable[str]) -> Iterator[list[str]]:
    """Parts of a text, as many at a time as make `CHARACTERS_AT_ONCE`."""
    some: list[str] = []
    n_characters = 0
    for part in parts:
        some.append(part)
        n_characters += len(part)
        if n_characters >= CHARACTERS_AT_ONCE:
            yield some
            some, n_characters = [], 0
    if some:
        yield some


def read_tokenizer(folder: Path) -> Tokenizer:
    """A model's tokenizer, as that of the `tokenizers` library; raises TextError."""
    from tokenizers import Tokenizer

    file, described = folder / TOKENIZER, folder.is_file()
    refuse_lfs_pointer(file, TextError)
    try:
        if described or file.is_file():
            tokenizer = (
                Tokenizer.from_str(description(folder)[TOKENIZER]) if described else Tokenizer.from_file(str(file))
            )
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
        # Of older models; takes seconds to import.
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    # `tokenizers` raises plain Exceptions, `transformers` whatever it trips over.
    except Exception as error:
        raise TextError(f"{folder}: no tokenizer that can be read ({one_line(error)})") from error


def token_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """For each token what it adds to a text; a part of a character is shown as the tokenizer names it."""
    before = visible_token(tokenizer)
    length = len(tokenizer.decode([before], skip_special_tokens=False))
    texts: list[str] = []
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([before, token], skip_special_tokens=False)[length:]
        name = tokenizer.id_to_token(token) or f"<{token}>"
        texts.append(name if UNDECODABLE in text else text)
    return tuple(texts)


def visible_token(tokenizer: Tokenizer) -> int:
    """One that others are looked at behind, as some tokenizers drop a space at the beginning.

    That of a letter, or where the tokenizer has no such token and none for what it does not know, any with a text.
    """
    with suppress(Exception):  # a plain one
        if tokens := tokenizer.encode("a", add_special_tokens=False).ids:
            return tokens[-1]
    n_tokens = tokenizer.get_vocab_size()
    return next((token for token in range(n_tokens) if tokenizer.decode([token]).strip()), 0)
