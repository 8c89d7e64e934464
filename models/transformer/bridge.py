"""Any decoder that TransformerLens loads, as an architecture and weights; what cannot be represented is refused.

TransformerLens takes seconds to import, so it is only imported by what loads a model.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from logging import ERROR, getLogger
from sys import stderr
from typing import TYPE_CHECKING

import torch

from libcore.messages import short_reason
from models.transformer.architecture import Architecture, Weights
from models.transformer.bridge_architecture import architecture_of, attention_scales
from models.transformer.bridge_positions import rotary_positions
from models.transformer.bridge_weights import weights_of
from models.transformer.chain import chain_of
from models.transformer.loading import boot
from models.transformer.node_layers import OUTPUT, all_node_layers
from models.transformer.reference import Reference
from models.transformer.unsupported import UnsupportedFeature, model_name, refuse_unsupported
from models.weights import CheckpointError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = ["UnsupportedFeature", "convert", "load_pretrained"]

TOLERANCE = 1e-3
"""Largest deviation of a logit that passes for round-off in float32, as a share of the logits' spread."""


def load_pretrained(
    name: str, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> tuple[Architecture, Weights]:
    """A decoder by its name on the Hugging Face hub, from a local folder in the hub's format, or from a GGUF file.

    Code that comes with a model is run only with `trust_remote_code`; nobody is asked.

    Args:
        dtype: None for float32, or float64 where weights are stored in it.

    Raises:
        CheckpointError: there is no such model, it is damaged, or TransformerLens does not know its kind.
        UnsupportedFeature: a chain of sections cannot represent it.
    """
    with quiet_libraries():
        bridge, reference = boot(name, dtype, trust_remote_code)
        try:
            return convert(bridge, reference)
        except (UnsupportedFeature, CheckpointError):
            raise
        # What TransformerLens's components lack, or do not find in a model that is not built as they take it to be.
        except Exception as error:
            reason = f"what TransformerLens makes of it ({short_reason(error)})"
            raise UnsupportedFeature(model_name(bridge), reason) from error


def convert(bridge: TransformerBridge, reference: Reference | None = None) -> tuple[Architecture, Weights]:
    """Architecture and weights of a bridge, in its dtype and on the CPU.

    The logits of the chain that they give are compared with the reference, by default the bridge's own, so that a model
    that does more than its configuration and components tell is not analysed as another.

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
        device = bridge.embed.W_E.device
        if reference is None:
            reference = Reference.of(lambda tokens: bridge(tokens.to(device)), bridge.cfg)
        if not has_logits_of(architecture, weights, dtype, reference):
            raise UnsupportedFeature(
                model_name(bridge),
                "what the model computes beside what its configuration tells (its logits are others)",
            )
    return architecture, weights


def has_logits_of(architecture: Architecture, weights: Weights, dtype: torch.dtype, reference: Reference) -> bool:
    """Whether the chain computes the reference's logits."""
    layers = (all_node_layers(architecture)[0], OUTPUT)
    chain = chain_of(architecture, weights, dtype, torch.device("cpu"), layers)
    ours, theirs = chain.activation(reference.tokens, len(layers) - 1), reference.logits
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
