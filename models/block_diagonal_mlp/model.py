"""An MLP of known structure: independent blocks, hidden behind a random rotation in every node layer.

Nothing is trained: the weights are the ground truth. A method that finds interactions finds the blocks again, in every
layer; variance alone cannot at the input, where the data are isotropic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from libcore.ablation import EvaluationData
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.constant import beside_constant, constant_alone, folded, with_constant
from libcore.methods.random import haar_rotation
from libcore.sections import AffineSection, ResidualElementwiseSection, Section
from models.analysed import CONSTANT, AnalysedModel
from models.block_diagonal_mlp.data import combinations, isotropic_points
from models.weights import ModelFile, check_shapes

SMALLEST_VARIANCE = 1e-3
"""Of a block's activations, relative to the largest: well above what round-off makes of a direction that is none."""
MAX_DRAWS = 2000
"""Weights tried for one block; the default sizes need about two."""
PURE_SHARE = 0.995
"""A feature is named by its block alone if this share of its squared norm lies there."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """Blocks, layers and data of the block-diagonal MLP.

    Attributes:
        n_blocks: independent parts that every layer consists of.
        block_width: neurons of one block in every node layer but the output.
        n_layers: weight matrices; ReLU between them, none after the last.
        n_outputs_per_block: outputs of one block.
        points_per_block: inputs that one block takes; the data are all `points_per_block ** n_blocks` combinations.
        correlation: in [0, 1): 0 for independent blocks, else about the share of examples in which all blocks take the
            point of the same number.
    """

    n_blocks: int = 4
    block_width: int = 4
    n_layers: int = 3
    n_outputs_per_block: int = 4
    points_per_block: int = 6
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation={self.correlation}: expected a number from 0 to below 1")

    @property
    def width(self) -> int:
        """Neurons of a node layer before the output, the constant coordinate not counted."""
        return self.n_blocks * self.block_width


def node_layers(architecture: Architecture) -> tuple[str, ...]:
    """`layers.0`, the input, to `output`; each but the last is the activation before that weight matrix."""
    return (*(f"layers.{index}" for index in range(architecture.n_layers)), "output")


def weight_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Every weight's name and shape; `points` are the blocks' inputs."""
    width, last = architecture.width, architecture.n_layers - 1
    shapes: dict[str, tuple[int, ...]] = {
        "points": (architecture.n_blocks, architecture.points_per_block, architecture.block_width)
    }
    for index in range(architecture.n_layers):
        width_out = architecture.n_blocks * architecture.n_outputs_per_block if index == last else width
        shapes |= {
            f"layers.{index}.W": (width, width_out),
            f"layers.{index}.b": (width_out,),
            f"rotations.{index}": (width, width),
        }
    return shapes


def initial_weights(architecture: Architecture, seed: int) -> Weights:
    """Gaussian weights of variance two over the width they read from, biases of variance 1/4, Haar rotations; float64.

    Raises ValueError for too few points per block.
    """
    generator = torch.Generator().manual_seed(seed)
    n_blocks, width, last = architecture.n_blocks, architecture.block_width, architecture.n_layers - 1
    weights = {"points": isotropic_points(n_blocks, architecture.points_per_block, width, generator)}
    activations = list(weights["points"])
    for index in range(architecture.n_layers):
        width_out = architecture.n_outputs_per_block if index == last else width
        drawn = [block_weights(activation, width_out, index == last, generator) for activation in activations]
        activations = [functional.relu(x @ w + b) for x, (w, b) in zip(activations, drawn, strict=True)]
        weights[f"layers.{index}.W"] = torch.block_diag(*[weight for weight, _ in drawn])
        weights[f"layers.{index}.b"] = torch.cat([bias for _, bias in drawn])
        normal = torch.randn(architecture.width, architecture.width, generator=generator, dtype=torch.float64)
        weights[f"rotations.{index}"] = haar_rotation(normal).contiguous()
    return {name: weights[name] for name in weight_shapes(architecture)}


def block_weights(
    activation: Float[Tensor, "point width"], width_out: int, is_last: bool, generator: torch.Generator
) -> tuple[Float[Tensor, "width width_out"], Float[Tensor, " width_out"]]:
    """Weight and bias of one block between two node layers.

    Before the last layer they are drawn again until the next activation varies in all directions, so that every node
    layer has as many features as neurons: units that are never active, or only together, would leave fewer.
    """
    n_points, width = activation.shape
    for _ in range(MAX_DRAWS):
        weight = torch.randn(width, width_out, generator=generator, dtype=torch.float64) * (2 / width) ** 0.5
        bias = torch.randn(width_out, generator=generator, dtype=torch.float64) / 2
        if is_last or varies_in_all_directions(functional.relu(activation @ weight + bias)):
            return weight, bias
    raise ValueError(
        f"{n_points} points per block of width {width}: hidden activations hardly ever vary in all {width} directions; "
        "expected more points or a smaller width"
    )


def varies_in_all_directions(activation: Float[Tensor, "point width"]) -> bool:
    """Whether the smallest principal variance is more than a thousandth of the largest."""
    deviation = torch.linalg.svdvals(activation - activation.mean(0))
    return bool(deviation[-1].square() > deviation[0].square() * SMALLEST_VARIANCE)


def load_weights(path: Path, architecture: Architecture) -> Weights:
    """Weights from a state dict or `.safetensors` file; raises CheckpointError with the first mismatch."""
    return check_shapes(ModelFile.read(path).tensors, weight_shapes(architecture), (), path)


def chain_of(weights: Weights, architecture: Architecture, dtype: torch.dtype, device: torch.device) -> Chain:
    """The MLP as sections between rotated node layers; its inputs are the block-structured `[example, width]`."""
    # Rotated weights are products: taken before rounding to the working dtype.
    double = {name: weight.to(device=device, dtype=torch.float64) for name, weight in weights.items()}
    sections: list[Section] = []
    for index in range(architecture.n_layers):
        weight_in = folded(double[f"rotations.{index}"].T @ double[f"layers.{index}.W"], double[f"layers.{index}.b"])
        if index == architecture.n_layers - 1:
            sections.append(AffineSection(weight_in))
            continue
        constant = constant_alone(architecture.width, architecture.width, like=weight_in)
        weight_out = beside_constant(double[f"rotations.{index + 1}"])
        sections.append(ResidualElementwiseSection(constant, weight_in, weight_out, functional.relu))

    def rotated(inputs: Float[Tensor, "batch width"]) -> Float[Tensor, "batch 1 d"]:
        activation = inputs.double() @ double["rotations.0"]
        return with_constant(activation)[:, None].to(dtype)

    return Chain(
        node_layers(architecture),
        tuple(section.to(dtype=dtype) for section in sections),
        embed=rotated,
        last_has_constant=False,
    )


def analysed(weights: Weights, architecture: Architecture, device: torch.device) -> AnalysedModel:
    """The MLP on all its data, which it is also tested on; the unablated model scores 1.

    A part of them is taken in a random order, always the same, so that blocks are independent in it too, but for
    chance.
    """
    inputs = combinations(weights["points"].to(device=device, dtype=torch.float64), architecture.correlation)
    data = evaluation_data(weights, architecture, inputs)
    return AnalysedModel(
        chain=lambda dtype: chain_of(weights, architecture, dtype, device),
        train=data,
        test=data,
        order=torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0)).to(device),
        label_features=partial(label_features, weights, architecture),
    )


def evaluation_data(
    weights: Weights, architecture: Architecture, inputs: Float[Tensor, "example width"]
) -> EvaluationData:
    """Share of blocks whose largest output is the same as the unablated model's."""

    def largest_by_block(outputs: Float[Tensor, "example 1 output"]) -> Tensor:
        return outputs[:, 0].unflatten(-1, (architecture.n_blocks, -1)).argmax(-1)

    chain = chain_of(weights, architecture, torch.float64, inputs.device)
    expected = largest_by_block(chain.activation(inputs, architecture.n_layers))

    def agreements(outputs: Tensor, start: int, stop: int) -> Tensor:
        return (largest_by_block(outputs) == expected[start:stop]).double().mean(-1)

    def agreement(outputs: Tensor, start: int, stop: int) -> float:
        return float(agreements(outputs, start, stop).sum())

    return EvaluationData(inputs, agreement, example_scores=agreements)


def block_shares(
    weights: Weights, architecture: Architecture, layer: str, basis: Basis
) -> Float[Tensor, "feature block"]:
    """How each feature's direction (its row of `from_basis`, rotated back) divides its squared norm among the blocks.

    The constant coordinate is left out; the constant feature's direction is then what its row adds to the blocks, and
    its shares are zero where that is nothing.
    """
    directions = basis.from_basis.double()
    if basis.has_constant:
        directions = (
            directions[:, :-1] @ weights[f"rotations.{node_layers(architecture).index(layer)}"].to(directions).T
        )
    by_block = directions.square().unflatten(1, (architecture.n_blocks, -1)).sum(-1)
    total = by_block.sum(1, keepdim=True)
    return torch.where(total > 0, by_block / total, 0.0)


def label_features(
    weights: Weights, architecture: Architecture, chain: Chain, bases: dict[str, Basis]
) -> dict[str, list[str]]:
    """The block that holds most of each kept feature, with its share where that is not all."""
    labels: dict[str, list[str]] = {}
    for layer in chain.node_layers:
        share, block = block_shares(weights, architecture, layer, bases[layer]).max(1)
        labels[layer] = [label_of(*entry) for entry in zip(block.tolist(), share.tolist(), strict=True)]
        if bases[layer].has_constant:
            labels[layer][0] = CONSTANT
    return labels


def label_of(block: int, share: float) -> str:
    """`block 2`, or `block 2 (63 %)` for a feature that lies in others too."""
    return f"block {block}" if share > PURE_SHARE else f"block {block} ({100 * share:.0f} %)"
