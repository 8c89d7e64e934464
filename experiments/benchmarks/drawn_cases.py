"""Models with random weights: no operation's time depends on what weights a network has learned.

Their test data are labelled by the model itself, so that ablations have a score to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from experiments.benchmarks.cases import Case, Slices, named_by_the_model
from experiments.benchmarks.sizes import Sizes
from experiments.benchmarks.sources import Sources
from experiments.config.model_checks import resolve_device
from experiments.config.scores import TOLERANCES
from experiments.config.settings import fit_settings
from libcore.ablation import EvaluationData, accuracy
from libcore.chain import Chain
from libcore.fit_settings import FitSettings
from models.room import Room
from models.transformer.architecture import Architecture
from models.transformer.chain import chain_of
from models.vision.room import ImageClassifierRoom
from models.weights import ModelFile

SPREAD_OF_LOGITS = 3.0
BALANCED, BALANCED_ON = 0.9, 256
"""Share of the mean logits that is taken away; images that they are the mean of."""


def image_mlp(sources: Sources, sizes: Sizes) -> Case:
    """The fully connected network of the paper's CIFAR-10 model."""
    widths = ",".join(map(str, sizes.hidden))
    return image_case("cifar10_mlp", f"model.hidden_sizes=[{widths}]", sizes.mlp, sources, sizes)


def image_cnn(sources: Sources, sizes: Sizes) -> Case:
    """The small convolutional network."""
    channels = ",".join(map(str, sizes.channels))
    return image_case("cifar10_cnn", f"model.channels=[{channels}]", sizes.cnn, sources, sizes)


def image_case(kind: str, override: str, numbers: tuple[int, int, int, int], sources: Sources, sizes: Sizes) -> Case:
    """A network on CIFAR-10 where that is given, else on random images of the same shape."""
    n_fit, n_test, fit, ablation = numbers
    root, dataset = (), sizes.images
    if sources.cifar is not None:
        root, dataset = (f"data.root={sources.cifar}",), "cifar10"
    config = sources.config(kind, override, f"model.dataset={dataset}", *root)
    room, device = sources.room(config), resolve_device(config.device)
    assert isinstance(room, ImageClassifierRoom)
    has_checkpoint = config.model.checkpoint is not None
    if sources.cifar is None:
        shape, generator = room.image_format.image_shape(), torch.Generator().manual_seed(0)
        drawn = torch.randint(256, (n_fit + n_test, *shape), generator=generator, dtype=torch.uint8)
        inputs, held_out = drawn.to(device).split((n_fit, n_test))
        labels = None
    else:
        room.check()
        inputs = room.dataset.train.to(device).images[:n_fit]
        test = room.dataset.test.to(device)
        held_out, labels = test.images[:n_test], test.labels[:n_test] if has_checkpoint else None
    file = room.read_checkpoint() if has_checkpoint else with_balanced_logits(room.initial(), room, inputs)
    chain = room.chains(file, device)
    if labels is None:
        labels = named_by_the_model(chain(torch.float64), held_out)[:, -1]
    n_pairs = len(room.node_layers) - 1
    images = "CIFAR-10" if sources.cifar is not None else f"random images of the shape of {dataset}"
    return Case(
        name="CIFAR-10 MLP" if kind == "cifar10_mlp" else "CIFAR-10 CNN",
        described=f"{images}; weights {'of a checkpoint' if has_checkpoint else 'as drawn, not trained'}",
        chain=chain,
        inputs=inputs,
        test=accuracy(held_out, labels),
        tolerances=tuple(TOLERANCES[room.score_name]),
        settings=fit_settings(config),
        slices=Slices(fit, ablation, tuple(range(n_pairs)) if kind == "cifar10_mlp" else tuple(range(n_pairs))[-3:]),
        ablated=tuple(range(n_pairs)),
    )


@torch.no_grad()
def with_balanced_logits(file: ModelFile, room: Room[Any], inputs: Tensor) -> ModelFile:
    """The same network, the readout's bias such that no class is named throughout.

    Not wholly balanced: where nothing but the mean is kept, all logits would be equal.
    """
    chain = room.chain(file, torch.float64, inputs.device)
    logits = chain.output_from(chain.activation(inputs[:BALANCED_ON], 0), 0)[:, -1]
    name = next(name for name in reversed(file.tensors) if file.tensors[name].shape == logits.shape[1:])
    bias = file.tensors[name] - BALANCED * logits.mean(0).to(file.tensors[name])
    return ModelFile(file.tensors | {name: bias}, file.header)


def drawn_decoder(sources: Sources, sizes: Sizes) -> Case:
    """A decoder of the shape of stories260k: RMSNorm, rotary positions, grouped queries, gated MLPs."""
    n_fit, n_test, fit, ablation = sizes.decoder
    device = resolve_device(sources.device)
    architecture = decoder_architecture(sizes.blocks, sizes.width, sizes.vocabulary, sizes.sequence)
    chain = decoder_chain(architecture, device)
    tokens = drawn_tokens(n_fit + n_test, architecture, device)
    inputs, held_out = tokens.split((n_fit, n_test))
    n_layers = len(chain(torch.float64).node_layers)
    layers = (4, 5) if n_layers > 6 else (0, 1)
    expected = named_by_the_model(chain(torch.float64), held_out)

    def score_sum(outputs: Tensor, start: int, stop: int) -> float:
        losses = functional.cross_entropy(outputs.mT, expected[start:stop], reduction="none")
        return losses.mean(1, dtype=torch.float64).sum().item()

    return Case(
        name="decoder",
        described=f"of the shape of stories260k, {sizes.sequence} tokens a sequence; tokens and weights as drawn",
        chain=chain,
        inputs=inputs,
        test=EvaluationData(held_out, score_sum, lower_is_better=True, score_name="cross-entropy"),
        tolerances=tuple(TOLERANCES["cross-entropy"]),
        settings=FitSettings(memory_budget=2**27),
        slices=Slices(fit, ablation, layers, sizes.compared_tokens),
        ablated=layers,
    )


def decoder_architecture(n_blocks: int, width: int, vocabulary: int, sequence: int) -> Architecture:
    """Sizes in the proportions of stories260k, which has a width of 64."""
    d_head, n_heads = max(2, width // 8), 8 if width >= 64 else 4
    return Architecture(
        n_layers=n_blocks,
        d_model=width,
        n_heads=n_heads,
        n_key_value_heads=n_heads // 2,
        d_head=d_head,
        d_mlp=width * 172 // 64,
        d_vocab=vocabulary,
        d_vocab_out=vocabulary,
        n_context=sequence,
        normalisation="rms_norm",
        final_normalisation="rms_norm",
        eps=1e-5,
        positions="rotary",
        rotary_frequencies=(tuple(10_000 ** (-2 * pair / d_head) for pair in range(d_head // 2)),) * n_blocks,
        gated=True,
        activation_function="silu",
        parallel=False,
        attention_scale=sqrt(d_head),
        windows=(None,) * n_blocks,
    )


def decoder_chain(architecture: Architecture, device: torch.device) -> Callable[[torch.dtype], Chain]:
    """Its chain by dtype. Weights keep the size of what they read, gains are one, biases zero."""
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, shape in architecture.weight_shapes().items():
        kind = name.rpartition(".")[2]
        if kind == "w":
            weights[name] = torch.ones(shape)
        elif kind.startswith("b"):
            weights[name] = torch.zeros(shape)
        else:
            reads = 1 if kind == "W_E" else shape[-2] * (shape[0] if kind == "W_O" else 1)
            weights[name] = torch.randn(shape, generator=generator) * reads**-0.5
    weights["unembed.W_U"] *= SPREAD_OF_LOGITS

    @cache
    def chain(dtype: torch.dtype) -> Chain:
        return chain_of(architecture, weights, dtype, device)

    return chain


def drawn_tokens(n_sequences: int, architecture: Architecture, device: torch.device) -> Tensor:
    """Sequences of the model's context."""
    shape, generator = (n_sequences, architecture.n_context), torch.Generator().manual_seed(1)
    return torch.randint(architecture.d_vocab, shape, generator=generator).to(device)
