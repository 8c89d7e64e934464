"""Pretrained decoders as TransformerLens's bridges: found, read and looked at before they are converted.

What the libraries would take without a word is refused here, by the name of the weight that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from inspect import signature
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from libcore.messages import first_line, short_reason
from models.git_lfs import refuse_lfs_pointer
from models.transformer.gguf_file import check_gguf, is_gguf, plain_model
from models.transformer.reference import Reference
from models.transformer.stored_weights import Stored, refuse_other_numbers, stored_weights
from models.transformer.unsupported import UnsupportedFeature
from models.weights import CheckpointError, no_weight

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

log = getLogger(__name__)

MOST_LAYERS = 1000
"""Each is built before a weight is looked at."""
N_NAMED = 3
"""Weights that a message names, of many."""
TAKEN_FOR_GRANTED = ("num_key_value_heads",)
"""What TransformerLens reads from any configuration, whether or not the model's own class has such a thing."""


def boot(name: str, dtype: torch.dtype | None, trust_remote_code: bool) -> tuple[TransformerBridge, Reference]:
    """The bridge of a pretrained decoder on the CPU, and logits of the model as it was before that was built.

    Of a folder, a GGUF file, or a name on the hub.

    The model is loaded beforehand, as only that tells whether the checkpoint has all weights: others would be random.

    Args:
        dtype: None for float32, or float64 where weights are stored in it.

    Raises CheckpointError, UnsupportedFeature.
    """
    from transformer_lens.model_bridge import TransformerBridge

    model = hugging_face_model(name, dtype, trust_remote_code)
    reference = reference_of(name, model)
    without_stray_keys(model.config)
    try:
        bridge = TransformerBridge.boot_transformers(
            name,
            device="cpu",
            dtype=next(model.parameters()).dtype,
            hf_model=model,
            tokenizer=unread_tokenizer(),
            trust_remote_code=trust_remote_code,
        )
    # Of many kinds, by what about the architecture it trips over.
    except Exception as error:
        said = "" if "rchitecture" in first_line(error) else f" ({short_reason(error)})"
        raise CheckpointError(
            f"{name}: TransformerLens does not load its architecture, {type(model).__name__}; "
            f"expected one that it does{said}"
        ) from error
    return bridge, reference


def reference_of(name: str, model: Any) -> Reference:
    """Logits of the model; raises CheckpointError where it cannot compute them."""
    try:
        return Reference.of(lambda tokens: model(tokens, use_cache=False).logits, model.config)
    # Sizes that do not fit each other end in errors of torch's, in whatever operation comes first.
    except Exception as error:
        raise CheckpointError(
            f"{name}: its own library cannot compute with it; expected a configuration that fits its weights "
            f"({short_reason(error)})"
        ) from error


def hugging_face_model(name: str, dtype: torch.dtype | None, trust_remote_code: bool) -> Any:
    """The model of its own library, with all weights, each of them finite numbers; raises as `boot` does."""
    path = Path(name)
    if is_gguf(path):
        check_gguf(path)
    elif name.startswith((".", "/")) and not path.is_dir():
        raise CheckpointError(f"{name}: no such folder; expected a Hugging Face model in it, or a .gguf file")
    else:
        refuse_pointers(path)
    stored = stored_weights(path)
    if dtype is None:
        dtype = torch.float64 if any(weight.dtype == "float64" for weight in stored) else torch.float32
    try:
        model, loaded = loaded_model(name, dtype, trust_remote_code)
    except (UnsupportedFeature, CheckpointError):
        raise
    # Depending on what is missing or damaged: OSError, ValueError, KeyError, or an error of safetensors or the hub.
    except Exception as error:
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{name}: brings code of its own along, which is not run; expected model.trust_remote_code=true from "
                "whoever trusts it"
            ) from error
        raise CheckpointError(
            f"{name}: cannot be loaded; expected a Hugging Face folder, a GGUF file, or a name on the hub "
            f"({short_reason(error)})"
        ) from error
    check_weights(name, model, loaded, stored)
    return model


def loaded_model(name: str, dtype: torch.dtype, trust_remote_code: bool) -> tuple[Any, Mapping[str, Any]]:
    """The model, and what its library tells of weights that were missing, misshapen or left over."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = Path(name)
    where: dict[str, Any] = {"pretrained_model_name_or_path": name, "trust_remote_code": trust_remote_code}
    if is_gguf(path):
        where |= {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    config = AutoConfig.from_pretrained(**where)
    if config.is_encoder_decoder:
        raise UnsupportedFeature(name, "encoder-decoder")
    n_layers = getattr(config, "num_hidden_layers", None)
    if isinstance(n_layers, int) and not 1 <= n_layers <= MOST_LAYERS:
        raise CheckpointError(f"{name}: num_hidden_layers is {n_layers}; expected from 1 to {MOST_LAYERS}")
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    if is_gguf(path):
        return plain_model(path, config, options)
    return cast(tuple[Any, dict[str, Any]], AutoModelForCausalLM.from_pretrained(**where, **options))


def refuse_pointers(folder: Path) -> None:
    """Raises CheckpointError for a folder that was cloned without its large files."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        refuse_lfs_pointer(file, CheckpointError)


def check_weights(name: str, model: Any, loaded: Mapping[str, Any], stored: Iterable[Stored]) -> None:
    """Raises CheckpointError for weights that are missing, of another shape, no numbers, or of layers beyond the last.

    What else a file holds is told in the log.
    """
    parameters = dict(model.named_parameters())
    for missing in sorted(loaded["missing_keys"]):
        raise CheckpointError(f"{name}: weight {missing} is missing; expected all of the model's weights")
    for weight, found, expected in sorted(loaded["mismatched_keys"]):
        raise CheckpointError(
            f"{name}: weight {weight} has another shape; expected {tuple(expected)}, found {tuple(found)}"
        )
    surplus = sorted(loaded["unexpected_keys"])
    if beyond := [weight for weight in surplus if is_like_one_of(weight, parameters)]:
        raise CheckpointError(
            f"{name}: {len(beyond)} weights belong to layers that the configuration does not have "
            f"({named(beyond)}); expected the configuration of these weights"
        )
    if surplus:
        log.warning("%s: %d weights that the model has no use for are left out: %s", name, len(surplus), named(surplus))
    refuse_other_numbers(stored, parameters)
    for weight, parameter in parameters.items():
        if (reason := no_weight(parameter)) is not None:
            raise CheckpointError(f"{name}: weight {weight} {reason}")


def is_like_one_of(weight: str, parameters: Collection[str]) -> bool:
    """Whether a name is a parameter's but for its numbers, such as that of the layer."""
    return without_numbers(weight) in {without_numbers(parameter) for parameter in parameters}


def without_numbers(name: str) -> str:
    """The same for all layers."""
    return re.sub(r"\d+", "#", name)


def named(weights: Collection[str]) -> str:
    """The first few of many."""
    first = list(weights)[:N_NAMED]
    return ", ".join(first) + (", …" if len(weights) > len(first) else "")


def without_stray_keys(config: Any) -> None:
    """Takes from a configuration what its class knows nothing of, so that the model does not heed it either."""
    known = signature(type(config).__init__).parameters
    if not type(config).__module__.startswith("transformers."):
        return
    for key in TAKEN_FOR_GRANTED:
        if key not in known and key in vars(config):
            delattr(config, key)


def unread_tokenizer() -> PreTrainedTokenizerFast:
    """For the bridge, which wants one, and would load the model's own, which no text goes through here."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<unused>": 0}, unk_token="<unused>"))
    special = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<unused>")
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)
