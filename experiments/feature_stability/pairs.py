"""Stability of all node layers' leading features between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from experiments.feature_stability.compared_runs import ComparedRun, of_same_weights
from experiments.feature_stability.covariances import covariances_by_activations, covariances_by_gram
from libcore.stability.joint_covariance import covariance_rank
from libcore.stability.layer import STABLE, LayerStability, layer_stability
from libcore.stability.principal_angles import degrees
from models.analysed import is_neuron_basis
from models.errors import UserError


@dataclass(frozen=True)
class PairStability:
    """Two runs.

    Attributes:
        n_examples: that both models were compared on; None for one model, which needs none.
        layers: by node layer; those whose features are the neurons in both runs are left out.
    """

    first: ComparedRun
    second: ComparedRun
    n_examples: int | None
    layers: dict[str, LayerStability]

    @property
    def title(self) -> str:
        """`LIB, seed 0, first half | LIB, seed 0, second half`."""
        return f"{self.first.title} | {self.second.title}"

    @property
    def sentence(self) -> str:
        """How many features are found again, and how."""
        layers = self.layers.values()
        n = sum(layer.n_features for layer in layers)
        alone = sum(int((layer.matching.correlations > STABLE).sum()) for layer in layers)
        grouped = sum(
            int(((layer.found_in_groups > STABLE) & (layer.matching.correlations <= STABLE)).sum()) for layer in layers
        )
        largest = max(degrees(layer.cosines).max().item() for layer in layers)
        on = "of one model" if self.n_examples is None else f"of two models (on {self.n_examples:,} inputs)"
        return (
            f"{self.title}: {alone} of {n} leading features {on} are found again by themselves (correlation above "
            f"{STABLE:g}), {grouped} more in their group of nearly equal importance only, {n - alone - grouped} not; "
            f"the spans of all of a layer are up to {largest:.0f} degrees apart."
        )


def stability_of_pairs(runs: Sequence[ComparedRun], n_examples: int, group_width: float) -> list[PairStability]:
    """Every two of the runs. Raises UserError for runs that cannot be compared."""
    return [stability_of(first, second, n_examples, group_width) for first, second in combinations(runs, 2)]


def stability_of(first: ComparedRun, second: ComparedRun, n_examples: int, group_width: float) -> PairStability:
    """Leading features: as many as either run needs at its middle tolerance."""
    same = of_same_weights(first, second)
    covariances = covariances_by_gram(first, second) if same else covariances_by_activations(first, second, n_examples)
    layers: dict[str, LayerStability] = {}
    for layer, covariance in covariances.items():
        one, other = first.graph.bases[layer], second.graph.bases[layer]
        if is_neuron_basis(one) and is_neuron_basis(other):
            continue
        n_directions = max(covariance_rank(run.graph.statistics[layer].gram.double()) for run in (first, second))
        n = max(first.n_leading(layer), second.n_leading(layer))
        n = min(n, one.n_variable, other.n_variable)
        if not n:
            raise UserError(f"{layer}: a basis without a feature that varies; expected some to compare")
        leading = [slice(basis.variable.start, basis.variable.start + n) for basis in (one, other)]
        importance = one.importance[leading[0]].double()
        layers[layer] = layer_stability(covariance.of_features(*leading), importance, n_directions, group_width)
    return PairStability(first, second, None if same else n_examples, layers)
