"""The `stochastic` estimator: Jacobian Grams and edges of any section from random signs over its outputs.

A probe `φ` gives every output a random sign. Cross terms vanish on average: `E[(φ·g)^T (φ·g)] = sum g^T g`
(METHOD.md 3, end). So a section read out through probes is differentiated in place of the section itself. All examples
draw their own probes: the error falls as 1/sqrt(R N) with probes per example `R` and examples `N`.

Cost, in backward passes per example and integration point; differentiation takes `positions * features`:

    Jacobian Gram, signs over positions and features: R
    Jacobian Gram, signs over positions:              R * features
    edges (squares of every single A_ij):             R * features, over positions whatever was chosen
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from libcore import processes
from libcore.basis import Basis
from libcore.estimators.differentiation import JacobianRows
from libcore.names import refuse_other
from libcore.quadrature import Quadrature
from libcore.sections import Section
from libcore.streams import ActivationStream, float64_zeros

ProbedOver = Literal["positions", "positions_and_features"]
PROBED_OVER: tuple[str, ...] = get_args(ProbedOver)
PHILOX_BITS = 256
"""What Philox draws per step of its counter."""


@dataclass(frozen=True)
class Probes:
    """How many random signs are drawn, over what, and which.

    Attributes:
        n: probes per example, `R`; at least 2, so that two halves can be compared.
        over: what a probe of a Jacobian Gram sums: output positions, or positions and features.
        seed: of the signs.
        name: what the signs are used for: another name draws others, so that one estimate does not lean on another's.
    """

    n: int = 8
    over: ProbedOver = "positions_and_features"
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        refuse_other("over", self.over, PROBED_OVER)
        if self.n < 2:
            raise ValueError(f"n={self.n} probes: expected at least 2, whose two halves tell the sampling error")

    def named(self, name: str) -> Probes:
        """The same number of signs, drawn for something else."""
        return replace(self, name=name)

    def signs(self, block: range, examples: range, values: int) -> Int8[Tensor, "probe example value"]:
        """Probes `block` of these examples, `values` signs each: the same numbers however the data are cut up."""
        steps = -(-values // PHILOX_BITS)
        drawn = np.empty((len(block), len(examples), values), dtype=np.int8)
        for row, probe in enumerate(block):
            digest = hashlib.sha256(f"{self.seed}/{self.name}/{probe}".encode()).digest()
            source = np.random.Philox(key=int.from_bytes(digest[:16]))
            source.advance(examples.start * steps)
            words = source.random_raw(len(examples) * steps * PHILOX_BITS // 64)
            drawn[row] = np.unpackbits(words.view(np.uint8)).reshape(len(examples), -1)[:, :values]
        return torch.from_numpy(2 * drawn - 1)

    def blocks(self, at_most: int) -> Iterator[tuple[int, range]]:
        """Blocks of equally many probes, each within half 0 or half 1 of them."""
        halves = (range(self.n // 2), range(self.n // 2, self.n))
        size = max(size for size in range(1, at_most + 1) if not any(len(half) % size for half in halves))
        for number, half in enumerate(halves):
            for start in range(half.start, half.stop, size):
                yield number, range(start, start + size)


PROBES = Probes()


@dataclass(frozen=True)
class Estimate:
    """A mean over probes, and its sampling error relative to it (Frobenius norms), told from the probes' two halves."""

    value: Float[Tensor, "row column"]
    relative_error: float


def stochastic_jacobian_gram(
    section: Section,
    stream: ActivationStream,
    next_basis: Basis,
    quadrature: Quadrature,
    probes: Probes,
) -> Estimate:
    """`M' ≈ 1/(R N P_l) sum_x sum_φ sum_s (φ·g)^T (φ·g)`, unbiased, float64 `[d_in, d_in]`.   (METHOD.md eq. 4)"""
    example = stream.example()
    _, positions, d_in = example.shape
    halves = float64_zeros(2, d_in, d_in, like=example)

    def to_features(activation: Tensor) -> Tensor:
        return next_basis.features(section(activation))

    read_out = ProbedReadOut(to_features, example, probes)
    rows = JacobianRows(read_out, example, stream.memory_budget)
    for start, activation in stream.own_chunks(rows.values_per_example):
        for half, block in read_out.blocks:
            read_out.draw(block, range(start, start + len(activation)))
            for row in rows(activation, quadrature):
                flat = row.double().flatten(0, -2)
                halves[half] += flat.T @ flat
    return estimate_of(processes.summed(halves) / (stream.n_examples * positions), probes.n)


def stochastic_edges(
    section: Section,
    stream: ActivationStream,
    basis: Basis,
    next_basis: Basis,
    quadrature: Quadrature,
    probes: Probes,
) -> Estimate:
    """`E_ij ≈ 1/(R N P_l) sum_x sum_φ (sum_t φ_t A_tij)^2`, unbiased, float64 `[feature_out, feature_in]`.   (eq. 8)"""
    example = basis.features(stream.example())
    _, positions, n_in = example.shape
    halves = float64_zeros(2, next_basis.n_features, n_in, like=example)

    def to_features(features: Tensor) -> Tensor:
        return next_basis.features(section(basis.activation(features)))

    read_out = ProbedReadOut(to_features, example, replace(probes, over="positions"))
    rows = JacobianRows(read_out, example, stream.memory_budget)
    for start, activation in stream.own_chunks(rows.values_per_example):
        features = basis.features(activation)
        for half, block in read_out.blocks:
            read_out.draw(block, range(start, start + len(features)))
            for (first, last), row in zip(rows.feature_ranges(), rows(features, quadrature), strict=True):
                attribution = torch.einsum("ibsj,bsj->ibj", row, features)
                halves[half, first:last] += attribution.double().square().sum(1)
    return estimate_of(processes.summed(halves) / (stream.n_examples * positions), probes.n)


class ProbedReadOut:
    """A function's features read out through a block of probes: `[batch, 1, row]`, what `JacobianRows` differentiates.

    With signs over positions and features a row is a probe. With signs over positions it is an output feature, each
    with signs of its own, and a block is one probe.

    Attributes:
        blocks: half and block of all probes in turn.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], example: Float[Tensor, "1 position d"], probes: Probes):
        output = function(example)
        self.function, self.probes, self.like = function, probes, output
        self.over_features = probes.over == "positions_and_features"
        self.blocks = list(probes.blocks(JacobianRows.MINIMUM_BLOCK if self.over_features else 1))
        self.draw(self.blocks[0][1], range(1))

    def draw(self, block: range, examples: range) -> None:
        """Take these probes for these examples, the next ones to be read out."""
        signs = self.probes.signs(block, examples, self.like[0].numel())
        self.signs = signs.to(self.like).unflatten(-1, self.like.shape[1:])

    def __call__(self, activation: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch 1 row"]:
        features = self.function(activation)
        if self.over_features:
            return torch.einsum("bti,pbti->bp", features, self.signs).unsqueeze(1)
        return (features * self.signs[0]).sum(1, keepdim=True)


def estimate_of(halves: Float[Tensor, "2 row column"], n: int) -> Estimate:
    """The mean from sums over the two halves of `n` probes.

    Its standard error is that of the halves' difference times `sqrt(n_1 n_2) / n`: half of it, for equal halves.
    """
    sizes = n // 2, n - n // 2
    value = halves.sum(0) / n
    difference = halves[0] / sizes[0] - halves[1] / sizes[1]
    scale = value.norm().item()
    # All probes are zero where the value is: then nothing was sampled.
    error = difference.norm().item() * (sizes[0] * sizes[1]) ** 0.5 / n / scale if scale else 0.0
    return Estimate(value, error)
