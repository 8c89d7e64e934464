"""The neuron baseline: the coordinates themselves, centred, by variance."""

from __future__ import annotations

import torch
from torch import Tensor

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation, largest_of
from libcore.fit_settings import FitSettings
from libcore.layer_by_layer import basis_of_directions, fit_layer_by_layer
from libcore.methods import method, never
from libcore.principal_components import variable_moments
from libcore.statistics import LayerStatistics


@method("neuron", label="neurons", sorts_by="variance", place=3, integrates=never, takes_jacobians=False)
def fit_neuron(
    chain: Chain, inputs: Tensor, statistics: dict[str, LayerStatistics], settings: FitSettings
) -> dict[str, Basis]:
    """Every neuron a feature."""
    return fit_layer_by_layer(lambda layer: neuron_basis, chain, inputs, statistics, settings)


def neuron_basis(statistics: LayerStatistics, has_constant: bool, truncation: Truncation, dtype: torch.dtype) -> Basis:
    """The neurons, centred through the constant coordinate, by variance; equal ones stay in the neurons' order.

    A neuron whose variance is at or below the cut is dropped; its mean stays in the constant's row of `from_basis`.
    """
    mean, gram = variable_moments(statistics, has_constant)
    variance, order = gram.diagonal().clamp(min=0.0).sort(descending=True, stable=True)
    kept = variance > truncation.cut(largest_of(variance), dtype)
    neurons = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    return basis_of_directions(neurons[:, order[kept]], mean, variance, has_constant)
