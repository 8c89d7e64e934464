"""Files of tokens, mapped into memory: a text that was tokenised before."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

import numpy as np
from jaxtyping import Integer

from libcore.messages import one_line
from libcore.regular_files import reason_of, refuse_irregular
from models.git_lfs import refuse_lfs_pointer
from models.transformer.vocabulary import TextError

ARRAY, RAW = ".npy", ".bin"
SUFFIXES = (ARRAY, RAW)
RAW_DTYPE = np.dtype("<u2")
"""Of a file without a header, as nanoGPT writes it."""


def is_token_file(path: Path | None) -> TypeGuard[Path]:
    """Whether a path's name is that of a file of tokens, which may not be there."""
    return path is not None and path.suffix in SUFFIXES and not path.is_dir()


def mapped_tokens(path: Path) -> Integer[np.ndarray, " token"]:
    """The file's tokens, read where they are looked at: NumPy's format, or `.bin` with two bytes a token.

    Raises TextError for a file that is damaged, and for one of anything but integers in one row.
    """
    try:
        refuse_irregular(path)
        refuse_lfs_pointer(path, TextError)
        n_bytes = path.stat().st_size
        if not n_bytes:
            raise TextError(f"{path}: empty; expected tokens")
        if path.suffix == RAW:
            if n_bytes % RAW_DTYPE.itemsize:
                raise TextError(f"{path}: {n_bytes} bytes; expected tokens of {RAW_DTYPE.itemsize} bytes each (uint16)")
            return np.memmap(path, RAW_DTYPE, "r")
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except TextError:
        raise
    except OSError as error:
        raise TextError(f"{path}: {reason_of(error)}; expected a file of tokens") from error
    # The header is a Python literal, whose tokenizer and parser have errors of their own.
    except Exception as error:
        raise TextError(f"{path}: cannot be read as an array of NumPy's ({one_line(error)})") from error
    if not isinstance(tokens, np.ndarray) or tokens.dtype.kind not in "iu" or tokens.ndim != 1:
        kind = f"{tokens.dtype} of shape {tokens.shape}" if isinstance(tokens, np.ndarray) else "several arrays"
        raise TextError(f"{path}: expected integers in one row, found {kind}")
    return tokens
