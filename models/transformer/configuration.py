"""What a pretrained model's folder says of the model in JSON, beside its sizes; or one file in place of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from libcore.messages import one_line
from libcore.regular_files import regular_text
from models.checked_tensors import read_checked, write_checked

CONFIGURATION, TOKENIZER = "config.json", "tokenizer.json"
CONTEXT_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
"""Keys under which different kinds of models keep how many tokens they read."""


class ConfigurationError(ValueError):
    """A file of the folder that is no JSON object."""


def read_configuration(file: Path) -> dict[str, Any]:
    """One of the folder's files, empty if there is none; raises ConfigurationError."""
    described = file.parent.is_file()
    if not described and not file.exists():
        return {}
    try:
        content = json.loads(description(file.parent).get(file.name, "{}") if described else regular_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: cannot be read ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{file}: cannot be read (no JSON object)")
    return content


def write_description(path: Path, texts: Mapping[str, str]) -> None:
    """One file in place of a folder, which has the texts of its files by their names."""
    write_checked(
        path, {name: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) for name, text in texts.items()}, {}
    )


@lru_cache(maxsize=2)
def description(path: Path) -> dict[str, str]:
    """The texts that such a file has; none where it is damaged."""
    found = read_checked(path)
    return {} if found is None else {name: bytes(text.numpy()).decode() for name, text in found.tensors.items()}


def context_length(folder: Path) -> int | None:
    """The longest sequence that the model reads, in tokens; None where its configuration does not say."""
    configuration = read_configuration(folder / CONFIGURATION)
    lengths = (configuration.get(key) for key in CONTEXT_LENGTHS)
    return next((length for length in lengths if isinstance(length, int)), None)


def beginning_of_sequence(folder: Path, token_of: Callable[[str], int | None]) -> int | None:
    """The token that marks the beginning of a text, where one of the folder's files names it.

    Args:
        folder: the model's, or the one file in its place.
        token_of: the tokenizer's number of a token that is named by its text.

    Raises ConfigurationError.
    """
    for name in (CONFIGURATION, "generation_config.json"):
        token = read_configuration(folder / name).get("bos_token_id")
        if isinstance(token, int):
            return token
    named = read_configuration(folder / "tokenizer_config.json").get("bos_token")
    text = named.get("content") if isinstance(named, dict) else named
    return token_of(text) if isinstance(text, str) else None
