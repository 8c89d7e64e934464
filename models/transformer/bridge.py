"""Any decoder that TransformerLens loads, as an architecture and weights; what cannot be represented is refused.

TransformerLens takes seconds to import, so it is only imported by what loads a model.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path
from sys import stderr
from typing import TYPE_CHECKING, Any, cast

import torch

from models.transformer.architecture import Architecture, Weights
from models.transformer.bridge_architecture import architecture_of, attention_scales
from models.transformer.bridge_positions import rotary_positions
from models.transformer.bridge_weights import weights_of
from models.transformer.chain import chain_of
from models.transformer.node_layers import OUTPUT, all_node_layers
from models.transformer.stored_weights import refuse_other_numbers
from models.transformer.unsupported import UnsupportedFeature, model_name, refuse_unsupported
from models.weights import CheckpointError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = ["UnsupportedFeature", "convert", "load_pretrained"]

MOST_LAYERS = 1000
"""Each is built before a weight is looked at."""
TOLERANCE = 1e-3
"""Largest deviation of a logit that passes for round-off in float32, as a share of the logits' spread."""


def load_pretrained(
    name: str, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False
) -> tuple[Architecture, Weights]:
    """A decoder by its name on the Hugging Face hub, or from a local folder in the hub's format.

    Code that comes with a model is run only with `trust_remote_code`; nobody is asked.

    Raises:
        CheckpointError: there is no such model, it is damaged, or TransformerLens does not know its kind.
        UnsupportedFeature: a chain of sections cannot represent it.
    """
    with quiet_libraries():
        return convert(boot(name, dtype, trust_remote_code))


def boot(name: str, dtype: torch.dtype, trust_remote_code: bool) -> TransformerBridge:
    """The bridge of a pretrained decoder on the CPU.

    The model is loaded beforehand, as only that tells whether the checkpoint has all weights: others would be random.
    """
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoConfig, AutoModelForCausalLM

    if name.startswith((".", "/")) and not Path(name).is_dir():
        raise CheckpointError(f"{name}: no such folder; expected a Hugging Face model in it")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        if config.is_encoder_decoder:
            raise UnsupportedFeature(name, "encoder-decoder")
        n_layers = getattr(config, "num_hidden_layers", None)
        if isinstance(n_layers, int) and not 1 <= n_layers <= MOST_LAYERS:
            raise CheckpointError(f"{name}: num_hidden_layers is {n_layers}; expected from 1 to {MOST_LAYERS}")
        model, loaded = cast(
            tuple[Any, dict[str, Any]],
            AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, output_loading_info=True, trust_remote_code=trust_remote_code
            ),
        )
        for missing in sorted(loaded["missing_keys"]):
            raise CheckpointError(f"{name}: weight {missing} is missing; expected all of the model's weights")
        refuse_other_numbers(Path(name), [parameter for parameter, _ in model.named_parameters()])
        return TransformerBridge.boot_transformers(
            name, device="cpu", dtype=dtype, hf_model=model, trust_remote_code=trust_remote_code
        )
    except (UnsupportedFeature, CheckpointError):
        raise
    # Depending on what is missing or damaged: OSError, ValueError, KeyError, or an error of safetensors or the hub.
    except Exception as error:
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{name}: brings code of its own along, which is not run; expected model.trust_remote_code=true from "
                "whoever trusts it"
            ) from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{name}: cannot be loaded; expected a Hugging Face folder, or a name on the hub ({reason[:160]})"
        ) from error


def convert(bridge: TransformerBridge) -> tuple[Architecture, Weights]:
    """Architecture and weights of a bridge, in its dtype and on the CPU.

    The logits of the chain that they give are compared with the bridge's on random tokens, so that a model that does
    more than its configuration and components tell is not analysed as another.

    Raises UnsupportedFeature for what a chain of sections cannot represent.
    """
    refuse_unsupported(bridge)
    dtype = bridge.embed.W_E.dtype
    if dtype not in (torch.float32, torch.float64):
        raise UnsupportedFeature(model_name(bridge), f"weights of type {dtype}")
    with evaluated(bridge), torch.no_grad():
        rotary, scales = rotary_positions(bridge), attention_scales(bridge)
        architecture = architecture_of(bridge, rotary, scales)
        weights = weights_of(bridge, architecture, rotary, scales)
        if not has_logits_of(bridge, architecture, weights, dtype):
            raise UnsupportedFeature(
                model_name(bridge),
                "what the model computes beside what its configuration tells (its logits are others)",
            )
    return architecture, weights


def has_logits_of(bridge: TransformerBridge, architecture: Architecture, weights: Weights, dtype: torch.dtype) -> bool:
    """Whether the chain computes the bridge's logits, on sequences longer than the longest window."""
    longest = max((window for window in architecture.windows if window is not None), default=0)
    length = min(architecture.n_context, max(24, longest + 8))
    tokens = torch.randint(architecture.d_vocab, (2, length), generator=torch.Generator().manual_seed(0))
    layers = (all_node_layers(architecture)[0], OUTPUT)
    chain = chain_of(architecture, weights, dtype, torch.device("cpu"), layers)
    theirs = bridge(tokens.to(bridge.embed.W_E.device)).cpu()
    ours = chain.activation(tokens, len(layers) - 1)
    if ours.shape != theirs.shape:
        return False
    spread = (theirs - theirs.mean()).abs().max()
    return bool((ours - theirs).abs().max() <= TOLERANCE * spread)


@contextmanager
def evaluated(bridge: TransformerBridge) -> Generator[None, None, None]:
    """Without dropout."""
    was_training = bridge.training
    bridge.eval()
    try:
        yield
    finally:
        bridge.train(was_training)


@contextmanager
def quiet_libraries() -> Generator[None, None, None]:
    """Other people's warnings are not shown, nor are progress bars where there is no terminal."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub = getLogger("huggingface_hub")
    hub_level = hub.level
    logging.set_verbosity_error()
    hub.setLevel(ERROR)
    if not stderr.isatty():
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        hub.setLevel(hub_level)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
