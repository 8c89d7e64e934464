"""The slow reference of ablations: a pass through the model for every number of features and for every edge mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.ablation import AblationCurve, EvaluationData, strongest_edges
from libcore.basis import Basis
from libcore.chain import Chain

EXAMPLES_AT_A_TIME = 1024


def node_scores(
    chain: Chain, data: EvaluationData, index: int, basis: Basis, numbers: Iterable[int]
) -> dict[int, float]:
    """The score with the first features kept, for every number: a full pass from the node layer."""

    def kept_first(kept: int) -> Callable[[Tensor], Tensor]:
        return lambda activation: chain.output_from(basis.keep_first(activation, kept), index)

    return {kept: score(chain, data, index, kept_first(kept)) for kept in numbers}


def edge_curve(
    chain: Chain,
    data: EvaluationData,
    index: int,
    bases: tuple[Basis, Basis],
    edges: Float[Tensor, "feature_out feature_in"],
    tolerances: Iterable[float],
    test_score: float,
) -> AblationCurve:
    """The published bisection from above, every output feature by a pass of its own with its own masked inputs."""
    basis, next_basis = bases
    section, scored, needed = chain.sections[index], dict[int, float](), dict[float, int]()
    n_edges = edges[:, basis.variable].numel()

    def with_edges(kept: int) -> float:
        mask = strongest_edges(edges, kept, basis.has_constant)

        def output(activation: Tensor) -> Tensor:
            features = basis.features(activation)
            outputs = [
                section(basis.activation(features * inputs)) @ next_basis.to_basis[:, feature]
                for feature, inputs in enumerate(mask)
            ]
            return chain.output_from(next_basis.activation(torch.stack(outputs, -1)), index + 1)

        return score(chain, data, index, output)

    for tolerance in tolerances:
        too_few, enough = 0, basis.d * next_basis.d
        while enough - too_few > 1:
            middle = (too_few + enough + 1) // 2
            kept = min(middle, n_edges)
            if kept not in scored:
                scored[kept] = with_edges(kept)
            if data.within(scored[kept], test_score, tolerance):
                enough = middle
            else:
                too_few = middle
        needed[tolerance] = min(enough, n_edges)
    return AblationCurve(scored, needed)


@torch.no_grad()
def score(chain: Chain, data: EvaluationData, index: int, output: Callable[[Tensor], Tensor]) -> float:
    """Of the model's outputs, computed from the activations of node layer number `index`."""
    total = 0.0
    for start in range(0, len(data.inputs), EXAMPLES_AT_A_TIME):
        some = data.inputs[start : start + EXAMPLES_AT_A_TIME]
        total += data.score_sum(output(chain.activation(some, index)), start, start + len(some))
    return total / len(data.inputs)
