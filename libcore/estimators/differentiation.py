"""The `exact` estimator: Jacobian Grams and edges of any section by batched vector-Jacobian products.

Cost: one backward pass per output position and output feature over all examples (per integration point), in chunks of
examples and output features that the memory budget holds. It is the reference every closed form is tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from libcore import processes
from libcore.basis import Basis
from libcore.quadrature import Quadrature
from libcore.sections import Section
from libcore.streams import ActivationStream, float64_zeros


def exact_jacobian_gram(
    section: Section,
    stream: ActivationStream,
    next_basis: Basis,
    quadrature: Quadrature,
) -> Float[Tensor, "d_in d_in"]:
    """`M' = 1/(N P_l) sum_x sum_{t,i} sum_s g^T g`, `g` averaged over the quadrature's points.   (METHOD.md eq. 4)"""
    example = stream.example()
    _, positions, d_in = example.shape
    gram = float64_zeros(d_in, d_in, like=example)

    def to_features(activation: Tensor) -> Tensor:
        return next_basis.features(section(activation))

    rows = JacobianRows(to_features, example, stream.memory_budget)
    for _, activation in stream.own_chunks(rows.values_per_example):
        for row in rows(activation, quadrature):
            flat = row.double().flatten(0, -2)
            gram += flat.T @ flat
    return processes.summed(gram) / (stream.n_examples * positions)


def exact_edges(
    section: Section,
    stream: ActivationStream,
    basis: Basis,
    next_basis: Basis,
    quadrature: Quadrature,
) -> Float[Tensor, "feature_out feature_in"]:
    """`E_ij = 1/(N P_l) sum_x sum_t A_tij(x)^2`, `A` from differentiating features by features.   (eq. 7-8)"""
    example = basis.features(stream.example())
    _, positions, n_in = example.shape
    square_sum = float64_zeros(next_basis.n_features, n_in, like=example)

    def to_features(features: Tensor) -> Tensor:
        return next_basis.features(section(basis.activation(features)))

    rows = JacobianRows(to_features, example, stream.memory_budget)
    for _, activation in stream.own_chunks(rows.values_per_example):
        features = basis.features(activation)
        for (start, stop), row in zip(rows.feature_ranges(), rows(features, quadrature), strict=True):
            attribution = torch.einsum("ibsj,bsj->ibj", row, features)
            square_sum[start:stop] += attribution.double().square().sum(1)
    return processes.summed(square_sum) / (stream.n_examples * positions)


class JacobianRows:
    """Rows `d function(f)_{t,i} / d f` of a batch, a block of output features `i` at one output position `t` at a time.

    A chunk of examples is as large as the budget allows with one block of at least `MINIMUM_BLOCK` features (or all of
    them), because the batched backward pass needs some width to be efficient.
    """

    MINIMUM_BLOCK = 8

    def __init__(
        self, function: Callable[[Tensor], Tensor], example: Float[Tensor, "1 position d_in"], memory_budget: int
    ) -> None:
        self.function = function
        output = function(example)
        self.positions_out, self.n_out = output.shape[1:]
        per_feature = saved_values(function, example) + 3 * example.numel() + 2 * output.numel()
        whole = memory_budget // (8 * max(1, per_feature))
        self.block = min(self.n_out, max(self.MINIMUM_BLOCK, whole))
        self.values_per_example = per_feature * (self.block + 1)

    def feature_ranges(self) -> Iterator[tuple[int, int]]:
        """Output features `[start, stop)` of each block, in the order in which the blocks come."""
        for _, start in product(range(self.positions_out), range(0, self.n_out, self.block)):
            yield start, min(start + self.block, self.n_out)

    def __call__(
        self, activation: Float[Tensor, "batch position d_in"], quadrature: Quadrature
    ) -> Iterator[Float[Tensor, "feature batch position d_in"]]:
        """Each block's rows, averaged over the quadrature's points along the path from zero."""
        blocks = list(self.feature_ranges())
        per_position = len(blocks) // self.positions_out
        for number, (start, stop) in enumerate(blocks):
            position = number // per_position
            average: Tensor | None = None
            for alpha, weight in quadrature:
                pull_back = vjp(self.function, alpha * activation)[1]
                cotangent = self._cotangent(activation, position, start, stop)
                (row,) = vmap(pull_back)(cotangent)
                average = weight * row if average is None else average.add_(row, alpha=weight)
            assert average is not None
            yield average.detach()

    def _cotangent(self, activation: Tensor, position: int, start: int, stop: int) -> Tensor:
        one_hot = activation.new_zeros(stop - start, 1, self.positions_out, self.n_out)
        features = torch.arange(stop - start, device=activation.device)
        one_hot[features, 0, position, features + start] = 1.0
        return one_hot.expand(-1, len(activation), -1, -1)


def saved_values(function: Callable[[Tensor], Tensor], example: Tensor) -> int:
    """How many numbers one example's forward pass saves for its backward pass: measured, not guessed."""
    count = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += tensor.numel() if not tensor.is_leaf or tensor.shape[:1] == example.shape[:1] else 0
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(example.detach().clone().requires_grad_())
    return count
