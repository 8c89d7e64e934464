"""Which features round-off identifies, and which only as a subspace of several (METHOD.md 7).

A basis is fitted a second time, on moments that differ by what rounding could have changed and with the cut a little
higher. A feature that stays where it is is identified; features that only mix among each other are identified as the
subspace they span; the others are numerical accidents of the machine, the threads and the dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from libcore.basis import Basis
from libcore.eigen import Truncation
from libcore.principal_components import variable_moments
from libcore.statistics import LayerStatistics

IDENTIFIED = 2.5e-4
"""How far a feature may move and still be the same: the sine of the angle between both as functions of the input. One
draw of roundings is no bound; features of the paper's networks that stay by this much stay by 1e-3 in any other order
of the examples, number of threads and dtype (tests/parity)."""
ROUNDINGS = 4.0
"""Relative errors of a Gram's entries in units of `eps`: a sum is rounded more than once."""
HIGHER_CUT = 8.0
"""What the cut is multiplied by for the second fit: directions between both are kept or dropped by round-off."""


@dataclass(frozen=True)
class Movement:
    """How far the features of a basis that vary are from those of another basis of the same activations.

    Attributes:
        alone: of each feature from the nearest one of the other basis: the sine of their angle, 0 to 1.
        in_group: from the span of the matches of its group; that of `alone` for a feature by itself.
        group: which features belong together, numbered from 0; -1 for those that are identified alone.
    """

    alone: Float[Tensor, " k"]
    in_group: Float[Tensor, " k"]
    group: Int[Tensor, " k"]

    def with_constant(self, has_constant: bool) -> Movement:
        """An entry for the constant feature, which does not move, before the others."""
        n = int(has_constant)
        return Movement(
            torch.cat([self.alone.new_zeros(n), self.alone]),
            torch.cat([self.in_group.new_zeros(n), self.in_group]),
            torch.cat([self.group.new_full((n,), -1), self.group]),
        )

    @property
    def identified(self) -> Bool[Tensor, " k"]:
        """Features that stay where they are."""
        return self.alone < IDENTIFIED

    @property
    def identified_in_group(self) -> Bool[Tensor, " k"]:
        """Those, and features that stay within the span of their group."""
        return self.identified | (self.in_group < IDENTIFIED)


def rounded_anew(statistics: Mapping[str, LayerStatistics], seed: int = 0) -> dict[str, LayerStatistics]:
    """Moments that another order of summation in float64 could have given.

    Every entry of a Gram is off by `ROUNDINGS * eps` on average, relative to the deviations of both coordinates, since
    an entry near zero is a sum of products that are not. Errors are normally distributed, symmetric, and drawn by
    `seed`.
    """
    generator = torch.Generator().manual_seed(seed)
    return {layer: replace(one, gram=rounded_gram(one.gram, generator)) for layer, one in statistics.items()}


def rounded_gram(gram: Float[Tensor, "d d"], generator: torch.Generator) -> Float[Tensor, "d d"]:
    """A Gram with errors of rounding."""
    noise = torch.randn(gram.shape, dtype=torch.float64, generator=generator).to(gram.device)
    deviation = gram.diagonal().sqrt()
    symmetric = noise.triu() + noise.triu(1).T
    return gram + ROUNDINGS * torch.finfo(torch.float64).eps * symmetric * torch.outer(deviation, deviation)


def higher_cut(truncation: Truncation, dtype: torch.dtype) -> Truncation:
    """The same rule, `HIGHER_CUT` times as high."""
    return Truncation(truncation.rule, HIGHER_CUT * truncation.cut(1.0, dtype))


def movement(statistics: LayerStatistics, basis: Basis, other: Basis) -> Movement:
    """How far `basis` is from `other`, both of the activations with these moments.

    In the inner product of the centred Gram, `c^T G c'`: an angle between features as functions of the input, whatever
    their scale. A feature is compared with the one of `other` that it is made of the most.
    """
    _, gram = variable_moments(statistics, basis.has_constant)
    (columns, _), (others, deviations) = normalised(gram, basis), normalised(gram, other)
    n, m = columns.shape[1], others.shape[1]
    if not n or not m:
        return Movement(columns.new_ones(n), columns.new_ones(n), torch.arange(n, device=columns.device))
    back = other.from_basis[other.variable, : len(gram)].double()
    made_of = deviations[:, None] * (back @ columns)  # `C'^+ c`, in units of the other features' deviations
    match = made_of.abs().argmax(0)
    alone = size(gram, columns - others[:, match] * made_of.gather(0, match[None]))
    group = groups(made_of, match, alone >= IDENTIFIED)
    members = torch.zeros_like(made_of).index_add_(0, match, (group[:, None] == group).to(made_of))
    in_group = size(gram, columns - others @ torch.where(members > 0, made_of, 0.0))
    return Movement(alone, torch.where(group < 0, alone, torch.minimum(alone, in_group)), group)


def normalised(gram: Float[Tensor, "d d"], basis: Basis) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
    """Columns of all features but the constant, each of unit deviation (zero for one that does not vary), and these."""
    columns = basis.to_basis[: len(gram), basis.variable].double()
    deviation = (columns * (gram @ columns)).sum(0).clamp(min=0).sqrt()
    return torch.where(deviation > 0, columns / torch.where(deviation > 0, deviation, 1.0), 0.0), deviation


def size(gram: Float[Tensor, "d d"], columns: Float[Tensor, "d k"]) -> Float[Tensor, " k"]:
    """Deviation of each column as a feature, at most 1."""
    return (columns * (gram @ columns)).sum(0).clamp(min=0).sqrt().clamp(max=1.0)


def groups(made_of: Float[Tensor, "m n"], match: Int[Tensor, " n"], moved: Bool[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Moved features that are made of each other's matches, as connected components; -1 for those that did not move.

    Whatever stays outside a feature's own component adds up to less than `IDENTIFIED`, but for what others' matches
    do not have.
    """
    found = torch.full_like(match, -1)
    chosen = torch.nonzero(moved).flatten()
    if not len(chosen):
        return found
    mixed = made_of[match[chosen]][:, chosen].abs() > IDENTIFIED / len(match) ** 0.5
    found[chosen] = components(mixed | mixed.T)
    return found


def components(joined: Bool[Tensor, "n n"]) -> Int[Tensor, " n"]:
    """Connected components of a graph, numbered in the order of their first members."""
    n = len(joined)
    joined = joined | torch.eye(n, dtype=torch.bool, device=joined.device)
    labels, before = torch.arange(n, device=joined.device), None
    while before is None or not torch.equal(labels, before):
        before = labels
        labels = torch.where(joined, labels, n).amin(1)
        labels = labels[labels]
    return torch.unique(labels, return_inverse=True)[1]


def condition(statistics: LayerStatistics, basis: Basis) -> float:
    """By what factor reading a feature magnifies relative errors of the activation, of the worst that varies.

    `sqrt(sum_k c_k^2 E[f_k^2])` over the feature's own deviation: what is summed beside what is left of it. Of
    whitened directions it is what whitening magnifies, the ratio of the largest to the smallest deviation. 0 without
    features.
    """
    mean, gram = variable_moments(statistics, basis.has_constant)
    columns, _ = normalised(gram, basis)
    second_moment = gram.diagonal() + mean.square()
    return (columns.square() * second_moment[:, None]).sum(0).sqrt().max().item() if columns.shape[1] else 0.0
