"""Jacobians between the leading features of adjacent node layers, and edges from them in any gauge.

With `fhat' = fhat T` at both layers the attribution of METHOD.md eq. 7 is, input by input,

    A' = sum_s  (T_out^T J_s T_in^-T) ∘ (fhat_s T_in)                                       eq. 11

and `E'` its mean square: differentiable in both `T`, without another pass through the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from libcore.basis import Basis
from libcore.estimators.differentiation import JacobianRows
from libcore.gauge.mixing import Mixing
from libcore.quadrature import Quadrature
from libcore.sections import Section
from libcore.streams import ActivationStream

BYTES_IN_CACHE = 2**19
"""Of Jacobians whose attributions are computed at a time: a step of a descent took 0.6 of its time in all at once
(measured on 400 inputs of 19 features and 114 outputs)."""


@dataclass(frozen=True)
class PairJacobians:
    """Of one layer pair, a sample for each input and chosen output position.

    Attributes:
        jacobian: `d fhat_i / d fhat_{s,j}`, `s` over the input positions that this output position depends on.
        features: `fhat_{s,j}` at the data point.
        scale: what the sum of squared attributions over all samples is multiplied by, for `E`.
    """

    jacobian: Float[Tensor, "sample feature_out position feature_in"]
    features: Float[Tensor, "sample position feature_in"]
    scale: float

    def edges(
        self, mixing: Mixing | None = None, next_mixing: Mixing | None = None
    ) -> Float[Tensor, "feature_out feature_in"]:
        """`E` between the mixed features; None where they are as they are."""
        squares = [
            attributions(jacobian, features, mixing, next_mixing).square().sum(0)
            for jacobian, features in zip(
                self.jacobian.split(self.samples_in_cache), self.features.split(self.samples_in_cache), strict=True
            )
        ]
        return torch.stack(squares).sum(0) * self.scale

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.jacobian.nbytes + self.features.nbytes

    @property
    def samples_in_cache(self) -> int:
        """How many are worked on at a time."""
        return max(1, BYTES_IN_CACHE // (8 * max(1, self.jacobian[0].numel())))

    def compressed(self) -> PairJacobians:
        """The same edges in any gauge from no more positions than features.

        Eq. 12 depends on `sum_s J_{s,ij} fhat_{s,m}` alone: as if position `m` had the unit feature `m`.
        """
        n_features = self.features.shape[-1]
        if self.features.shape[1] <= n_features:
            return self
        products = torch.einsum("bisj,bsm->bimj", self.jacobian, self.features)
        unit = torch.eye(n_features, dtype=products.dtype, device=products.device)
        return PairJacobians(products, unit.expand(len(products), -1, -1), self.scale)


def attributions(
    jacobian: Float[Tensor, "sample feature_out position feature_in"],
    features: Float[Tensor, "sample position feature_in"],
    mixing: Mixing | None,
    next_mixing: Mixing | None,
) -> Float[Tensor, "sample feature_out feature_in"]:
    """`A'` of eq. 11."""
    if mixing is not None:
        jacobian, features = jacobian @ mixing.backward.T, features @ mixing.forward
    of_positions = jacobian * features[:, None]
    attribution = of_positions.squeeze(2) if features.shape[1] == 1 else of_positions.sum(2)
    return attribution if next_mixing is None else next_mixing.forward.T @ attribution


def pair_jacobians(
    section: Section,
    stream: ActivationStream,
    bases: tuple[Basis, Basis],
    leading: tuple[Int[Tensor, " leading"], Int[Tensor, " next_leading"]],
    quadrature: Quadrature,
    positions: Sequence[int],
) -> PairJacobians:
    """By differentiation at these output positions, averaged over the quadrature's points along the path from zero.

    `bases` in the dtype that the section computes in; the result is float64.
    """
    (basis, next_basis), (columns, next_columns) = bases, leading
    to_next = next_basis.to_basis[:, next_columns]
    example = stream.example()
    if to_next.shape[1] == 0:  # nothing varies in the next layer
        nothing = torch.zeros(1, 0, 1, len(columns), dtype=torch.float64, device=example.device)
        return PairJacobians(nothing, nothing.new_zeros(1, 1, len(columns)), 1.0)
    n_in, n_out = example.shape[1], section(example).shape[1]

    def to_features(features: Tensor) -> Tensor:
        return section(basis.activation(features))[:, positions] @ to_next

    rows = JacobianRows(to_features, basis.features(example), stream.memory_budget)
    scale = n_out / len(positions) / (stream.n_examples * n_in)
    of_rows = 2 * len(positions) * len(next_columns) * n_in * len(columns)
    chunks: list[PairJacobians] = []
    for activation in stream.chunks(rows.values_per_example + of_rows):
        features = basis.features(activation)
        blocks = [row[..., columns].double() for row in rows(features, quadrature)]
        jacobian = torch.cat(blocks).unflatten(0, (len(positions), len(next_columns)))
        # input, output position, feature, input position, feature
        jacobian = jacobian.permute(2, 0, 1, 3, 4)
        chunks.append(on_what_is_read(jacobian, features[..., columns].double(), scale).compressed())
    return joined(chunks)


def on_what_is_read(
    jacobian: Float[Tensor, "input position_out feature_out position feature_in"],
    features: Float[Tensor, "input position feature_in"],
    scale: float,
) -> PairJacobians:
    """Only the input positions on which an output position depends for some input; as many for each, if of zeros."""
    is_read = (jacobian != 0).any(4).any(2).any(0)
    n_read = max(1, int(is_read.sum(1).max()))
    read = is_read.long().argsort(dim=1, descending=True, stable=True)[:, :n_read]  # position_out, position
    kept = [jacobian[:, number, :, positions] for number, positions in enumerate(read)]
    return PairJacobians(torch.stack(kept, 1).flatten(0, 1), features[:, read].flatten(0, 1), scale)


def joined(chunks: Sequence[PairJacobians]) -> PairJacobians:
    """All samples; positions that others have more of are filled up with zeros, which add nothing."""
    n_positions = max(chunk.features.shape[1] for chunk in chunks)
    missing = [n_positions - chunk.features.shape[1] for chunk in chunks]
    jacobians = [pad(chunk.jacobian, (0, 0, 0, n)) for chunk, n in zip(chunks, missing, strict=True)]
    features = [pad(chunk.features, (0, 0, 0, n)) for chunk, n in zip(chunks, missing, strict=True)]
    return PairJacobians(torch.cat(jacobians), torch.cat(features), chunks[0].scale)
