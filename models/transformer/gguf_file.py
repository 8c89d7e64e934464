"""GGUF files, llama.cpp's: one file with a model's sizes, its tokenizer and its weights, often in few bits."""

from __future__ import annotations

import io
import json
import sys
from contextlib import nullcontext, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from libcore.messages import short_reason
from libcore.regular_files import reason_of, refuse_irregular
from models.checked_tensors import read_checked
from models.git_lfs import refuse_lfs_pointer
from models.transformer.configuration import CONFIGURATION, TOKENIZER, write_description
from models.transformer.gguf_header import GgufError, GgufHeader, read_header
from models.weights import CheckpointError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SUFFIX = ".gguf"
PACKAGE = "gguf"
QUANTIZATION = "quantization_config"
"""What a model's configuration says of weights in few bits, which TransformerLens takes for weights that still are."""


def is_gguf(path: Path) -> bool:
    """Whether a name is that of a GGUF file, which may not be there."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def check_gguf(path: Path) -> GgufHeader:
    """What the file says of its model; raises CheckpointError for one that cannot be read to its end."""
    if find_spec(PACKAGE) is None:
        raise CheckpointError(
            f"{path}: GGUF files are read by a package that is not there; expected `pip install gguf`"
        )
    try:
        refuse_irregular(path)
        refuse_lfs_pointer(path, CheckpointError)
        return read_header(path)
    except GgufError as error:
        raise CheckpointError(f"{path}: {error}; expected a whole GGUF file") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {reason_of(error)}; expected a GGUF file") from error


def plain_model(path: Path, config: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model in floating-point numbers, and what its library tells of its weights.

    Weights in few bits are made floats block by block, scale times number, in float32.
    """
    from transformers import AutoModelForCausalLM

    # A progress bar that the library's own switch does not reach.
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        model, loaded = cast(
            tuple[Any, dict[str, Any]],
            AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, config=config, **options | unpacked()
            ),
        )
    for of_model in (model.config, model):
        for key in (QUANTIZATION, "hf_quantizer", "quantization_method"):
            if key in vars(of_model):
                delattr(of_model, key)
    model.is_quantized = False
    return model, loaded


def unpacked() -> dict[str, Any]:
    """What tells the library to leave no weight in its blocks, where it has a way to compute with those."""
    import transformers

    configuration = getattr(transformers, "GgufConfig", None)
    return {} if configuration is None else {QUANTIZATION: configuration(dequantize=True)}


def described(path: Path, kept: Path) -> Path:
    """`kept`, which has the file's tokenizer and what it says of its contexts, as reading them takes long.

    Written unless it is there; its name is one of the file's content. Raises CheckpointError.
    """
    if read_checked(kept) is not None:
        return kept
    header = check_gguf(path)
    configuration = {
        "bos_token_id": header.values.get("tokenizer.ggml.bos_token_id"),
        "max_position_embeddings": header.of_architecture("context_length"),
    }
    texts = {CONFIGURATION: json.dumps(configuration), TOKENIZER: tokenizer_of(path).to_str()}
    write_description(kept, texts)
    return kept


def tokenizer_of(path: Path) -> Tokenizer:
    """The file's tokenizer; raises CheckpointError."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    # The library raises whatever it trips over.
    except Exception as error:
        raise CheckpointError(
            f"{path}: no tokenizer that can be read ({short_reason(error)}); expected one in the file"
        ) from error
