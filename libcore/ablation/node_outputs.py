"""The model's output when one node layer keeps only its first `n` features (METHOD.md 4), for many `n` in turn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import LinearFirst

OutputWithKept = Callable[[int, int, int], Tensor]
"""`(start, stop, kept) -> outputs` of examples start..stop."""


def outputs_with_kept(chain: Chain, inputs: Tensor, index: int, basis: Basis, chunk: int) -> OutputWithKept:
    """Outputs by number of kept features; examples are always asked for in the same chunks of `chunk`.

    Where the section after the layer begins with a linear map to fewer coordinates, what the features add to those is
    kept up as their number grows: a further feature costs a rank-one update instead of a pass through the wide layer.
    """
    section = chain.sections[index] if index < len(chain.sections) else None
    if isinstance(section, LinearFirst) and section.linear.shape[1] < section.linear.shape[0]:
        sums = {
            start: GrowingSum(
                basis.features(chain.activation(inputs[start : start + chunk], index)),
                basis.from_basis @ section.linear,
            )
            for start in range(0, len(inputs), chunk)
        }
        return lambda start, stop, kept: chain.output_from(section.after_linear(sums[start].first(kept)), index + 1)

    def output_with_kept(start: int, stop: int, kept: int) -> Tensor:
        activation = chain.activation(inputs[start:stop], index)
        return chain.output_from(basis.keep_first(activation, kept), index)

    return output_with_kept


class GrowingSum:
    """`features[..., :n] @ weight[:n]` for growing `n`, summed in float64 so that nothing drifts."""

    def __init__(
        self, features: Float[Tensor, "batch position feature"], weight: Float[Tensor, "feature width"]
    ) -> None:
        self.features = features
        self.weight = weight
        self.kept = 0
        self.sum = torch.zeros(*features.shape[:2], weight.shape[1], dtype=torch.float64, device=features.device)

    def first(self, n: int) -> Float[Tensor, "batch position width"]:
        """The sum over the first `n` features, in the features' dtype."""
        if n < self.kept:
            self.kept = 0
            self.sum.zero_()
        self.sum += self.features[..., self.kept : n] @ self.weight[self.kept : n]
        self.kept = n
        return self.sum.to(self.features.dtype)
