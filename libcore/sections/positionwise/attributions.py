"""Attributions through a hidden layer, squared and summed: the inner part of elementwise edges (METHOD.md eq. 7-8)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.streams import float64_zeros, rows_per_chunk, within_cache

BYTES_IN_CACHE = 3 * 2**20
"""Weights and attributions of the samples taken at a time on a CPU. Beyond the caches, writing them to memory and
reading them back takes longer than the product."""

WORTH_LEAVING_OUT = 0.8
"""Share of neurons with a derivative above which gathering them costs more than the others' product."""


class ElementwiseAttributions:
    """`sum_x A_ji(x)^2` of `A_ji = (L_ji + sum_k U_jk d_k(x) V_ki) fhat_j(x)`, as samples come in.

    Products are in the weights' dtype, the sum is in float64.

    Args:
        linear: `L`, what goes beside the hidden layer.
        weight_in: `U`.
        weight_out: `V`.
        memory_budget: bytes for what is alive at a time.

    Attributes:
        square_sum: so far.
    """

    def __init__(
        self,
        linear: Float[Tensor, "feature_in feature_out"],
        weight_in: Float[Tensor, "feature_in d_hidden"],
        weight_out: Float[Tensor, "d_hidden feature_out"],
        memory_budget: int,
    ) -> None:
        self.linear = linear
        # A row of zeros for the samples that fewer neurons are active in.
        self.by_neuron_in, self.by_neuron_out = with_row_of_zeros(weight_in.T), with_row_of_zeros(weight_out)
        self.budget = within_cache(memory_budget, BYTES_IN_CACHE, linear)
        self.square_sum = float64_zeros(*linear.shape, like=linear)

    def add(self, features: Float[Tensor, "sample feature_in"], derivative: Float[Tensor, "sample d_hidden"]) -> None:
        """Take samples in, those together in which about as many neurons have a derivative."""
        active = (derivative != 0).sum(1)
        order = active.argsort()
        most = derivative.shape[1] if active.double().mean() > WORTH_LEAVING_OUT * derivative.shape[1] else None
        widest = int(active[order[-1]]) if most is None else most
        rows = rows_per_chunk(widest * sum(self.linear.shape) + 2 * self.linear.numel(), self.budget)
        for some in order.split(rows):
            width = most or max(1, int(active[some[-1]]))
            self._add_few(features[some], derivative[some], width)

    def _add_few(
        self, features: Float[Tensor, "few feature_in"], derivative: Float[Tensor, "few d_hidden"], width: int
    ) -> None:
        d_hidden = derivative.shape[1]
        if width == d_hidden:
            scaled_in = self.by_neuron_in[:-1].T * derivative[:, None, :]
            attribution = (scaled_in.flatten(0, 1) @ self.by_neuron_out[:-1]).unflatten(0, scaled_in.shape[:2])
        else:
            # A stable sort of "has none" puts each sample's neurons with a derivative first.
            neuron = (derivative == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
            of_neuron = derivative.gather(1, neuron)
            neuron = torch.where(of_neuron != 0, neuron, d_hidden)
            scaled_out = self.by_neuron_out[neuron].mul_(of_neuron[..., None])
            attribution = torch.bmm(self.by_neuron_in[neuron].mT, scaled_out)
        attribution.add_(self.linear).mul_(features[..., None])
        self.square_sum += attribution.square_().sum(0, dtype=torch.float64)


def with_row_of_zeros(weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows_and_one columns"]:
    """One more row."""
    return torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
