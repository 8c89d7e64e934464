"""Short names for a language model's features: the tokens at which each is largest."""

from __future__ import annotations

import json

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from models.analysed import CONSTANT, is_neuron_basis
from models.transformer.contexts import features_by_layer

N_SEQUENCES = 256
"""Only the first so many sequences are looked at."""
N_TOKENS = 3


@torch.no_grad()
def token_labels(
    chain: Chain,
    bases: dict[str, Basis],
    tokens: Int[Tensor, "example position"],
    vocabulary: tuple[str, ...],
    memory_budget: int,
) -> dict[str, list[str]]:
    """For every feature the three tokens at which its magnitude is largest: `" the", " a", "\\n"`.

    A token stands for all places where it is the one read last; its magnitude is the largest of them. Logits in the
    neuron basis bear their token's name, and the constant feature its own.

    Args:
        chain: its `embed` takes `tokens`; features are computed in its dtype and on its device.
        bases: of every node layer.
        tokens: the first `N_SEQUENCES` sequences are looked at.
        vocabulary: text of every token.
        memory_budget: bytes that one chunk's activations and features may take.
    """
    tokens = tokens[:N_SEQUENCES]
    occurring, index = tokens.unique(return_inverse=True)
    magnitude: dict[str, Tensor] = {}
    for start, layer, features in features_by_layer(chain, bases, tokens, memory_budget):
        flat = features.flatten(0, 1).abs()
        if layer not in magnitude:
            magnitude[layer] = flat.new_zeros(len(occurring), flat.shape[1])
        place = index[start : start + len(features)].reshape(-1, 1)
        magnitude[layer].scatter_reduce_(0, place.expand_as(flat), flat, "amax")
    return {
        layer: labels_of(bases[layer], occurring, largest, vocabulary, is_last=layer == chain.node_layers[-1])
        for layer, largest in magnitude.items()
    }


def labels_of(
    basis: Basis, occurring: Int[Tensor, " token"], magnitude: Tensor, vocabulary: tuple[str, ...], is_last: bool
) -> list[str]:
    """Names of one node layer's features from each occurring token's magnitude, `[token, feature]`."""
    if is_last and is_neuron_basis(basis) and basis.n_features <= len(vocabulary):
        return [quoted(vocabulary[token]) for token in range(basis.n_features)]
    top = magnitude.topk(min(N_TOKENS, len(occurring)), dim=0).indices
    labels = [", ".join(quoted(vocabulary[token]) for token in tokens) for tokens in occurring[top].T.tolist()]
    return [CONSTANT, *labels[1:]] if basis.has_constant else labels


def quoted(text: str) -> str:
    """A token with its spaces and line breaks to be seen."""
    return json.dumps(text, ensure_ascii=False)
