"""Which of several candidates needs fewest edges, by edge ablation against the model's own predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from libcore.ablation import EvaluationData, accuracy, cross_entropy, edge_ablation, unablated_score
from libcore.ablation.evaluation import number_of_largest
from libcore.ablation.examples import Examples
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.fit_settings import FitSettings, working_dtype
from libcore.gauge.sample import positions_of
from libcore.graph import interaction_edges
from libcore.streams import unwatched

ACCURACY_TOLERANCES = (0.001, 0.01, 0.05)
CROSS_ENTROPY_TOLERANCES = (0.01, 0.05, 0.1)
"""In nats. What counts as unharmed in runs too; several, because the model agrees with itself by so much that the least
can ask for almost all edges of any basis (CIFAR-10 MLP: 194 to 196 of 196)."""


MOST_PREDICTIONS = 4096
"""That candidates are compared on: an accuracy of 0.999 is known from so many to 0.0005. Their edges are of no more
output positions either."""


@dataclass(frozen=True)
class OwnPredictions:
    """Inputs that the model itself has labelled.

    Attributes:
        data: one label for each output position.
        score: of the model as it is.
        tolerances: how much worse than that is as good.
    """

    data: EvaluationData
    score: float
    tolerances: tuple[float, ...]

    @classmethod
    def of(cls, chain: Chain, inputs: Tensor, settings: FitSettings) -> OwnPredictions:
        """Classes of one output position: the largest logit, scored by accuracy.

        Of several positions: one token at each, drawn from the model's own distribution by the seed, scored by
        cross-entropy, which is in expectation least for the model as it is. Of the first inputs, as many as make
        `MOST_PREDICTIONS`.
        """

        def logits_of(start: int, stop: int) -> Tensor:
            return chain.output_from(chain.activation(inputs[start:stop], 0), 0)

        n_positions = positions_of(chain, inputs)[-1]
        inputs = compared_on(inputs, n_positions)
        examples = Examples.of(chain, inputs, 0, settings.memory_budget)
        if n_positions == 1:
            labels = torch.cat(examples.mapped(lambda *block: number_of_largest(logits_of(*block)[:, 0])))
            return cls(accuracy(inputs, labels), 1.0, ACCURACY_TOLERANCES)
        levels = torch.rand(
            len(inputs), n_positions, 1, generator=torch.Generator().manual_seed(settings.seed), dtype=torch.float64
        ).to(inputs.device)

        def drawn(start: int, stop: int) -> Tensor:
            below = logits_of(start, stop).double().softmax(-1).cumsum(-1)
            return (below < levels[start:stop]).sum(-1).clamp(max=below.shape[-1] - 1)

        data = cross_entropy(inputs, torch.cat(examples.mapped(drawn)))
        return cls(data, unablated_score(chain, data, settings.memory_budget), CROSS_ENTROPY_TOLERANCES)


def compared_on(inputs: Tensor, n_positions: int) -> Tensor:
    """The first inputs, as many as have `MOST_PREDICTIONS` output positions."""
    return inputs[: max(1, MOST_PREDICTIONS // n_positions)]


def needed_edges(
    chain: Chain, bases: Mapping[str, Basis], inputs: Tensor, predictions: OwnPredictions, settings: FitSettings
) -> Float[Tensor, "pair tolerance"]:
    """How many edges, as strong as on `inputs`, keep the model's predictions within each tolerance."""
    edges = interaction_edges(
        chain, inputs, dict(bases), settings.quadrature, settings.estimator, settings.memory_budget, settings.probes
    )
    dtype = working_dtype(chain, inputs)
    in_dtype = {layer: basis.to(dtype=dtype) for layer, basis in bases.items()}
    needed: list[list[int]] = []
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        of_pair, rest = (in_dtype[layer], in_dtype[next_layer]), (predictions.score, settings.memory_budget)
        curve = edge_ablation(chain, predictions.data, index, of_pair, edges[layer], predictions.tolerances, *rest)
        needed.append([curve.needed[tolerance] for tolerance in predictions.tolerances])
    return torch.tensor(needed, dtype=torch.float64)


def fewest_edges(
    chain: Chain,
    candidates: Sequence[dict[str, Basis]],
    inputs: Tensor,
    to_choose: Tensor,
    weights: Sequence[float],
    settings: FitSettings,
    on_compared: Callable[[], None] = unwatched,
) -> dict[str, Basis]:
    """The candidate of the least `relative_cost` on inputs to choose on; the first of equal ones.

    Costs are relative to the first candidate, which is LIB. Edges are as strong as on the first of `inputs`.
    `on_compared` is called after each candidate.
    """
    predictions = OwnPredictions.of(chain, to_choose, settings)
    of_edges, needed = compared_on(inputs, positions_of(chain, inputs)[-1]), []
    for bases in candidates:
        needed.append(needed_edges(chain, bases, of_edges, predictions, settings))
        on_compared()
    costs = [relative_cost(of_candidate, needed[0], weights) for of_candidate in needed]
    return candidates[costs.index(min(costs))]


def relative_cost(
    needed: Float[Tensor, "pair tolerance"], of_lib: Float[Tensor, "pair tolerance"], weights: Sequence[float]
) -> float:
    """Needed edges as shares of LIB's, summed over layer pairs with their weights and over tolerances."""
    return float((torch.tensor(weights, dtype=torch.float64) @ (needed / of_lib)).sum())
