"""Both ablations of a whole model: every node layer but the last, and every layer pair with edges (METHOD.md 4)."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from libcore.ablation.edge import edge_ablation_steps
from libcore.ablation.evaluation import AblationCurve, EvaluationData, unablated_score
from libcore.ablation.node import node_ablation_steps
from libcore.ablation.schedule import kept_schedule
from libcore.ablation.steps import Result, carried_out
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.first_pass import first_activations
from libcore.fit_settings import MEMORY_BUDGET
from libcore.graph import InteractionGraph
from libcore.streams import unwatched

AblationKind = Literal["node", "edge"]
TOLERANCES = (0.001, 0.01, 0.05)
"""Of an accuracy: 0.1 percentage points (the paper's), 1 and 5."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of an ablation: what was kept of which node layer, and the score with it."""

    kind: AblationKind
    layer: str
    kept: int
    score: float


@dataclass(frozen=True)
class Ablations:
    """Scores by what was kept, and how much of it is needed.

    Attributes:
        test_score: of the model as it is.
        nodes: by node layer, over the number of its first features kept, the constant counted as one.
        edges: by the node layer that they leave, over the number of strongest edges kept.
    """

    test_score: float
    nodes: dict[str, AblationCurve] = field(default_factory=dict)
    edges: dict[str, AblationCurve] = field(default_factory=dict)


@dataclass(frozen=True)
class Ablated:
    """What of a model is ablated.

    Attributes:
        nodes: node layers whose features are; None for all but the last.
        edges: node layers whose outgoing edges are, of those that have any; None for all.
        every_number: whether of features the smallest number within a tolerance is looked for among all numbers, or by
            bisection, which takes scores to grow with it.
    """

    nodes: Collection[str] | None = None
    edges: Collection[str] | None = None
    every_number: bool = True

    def has_nodes(self, layer: str) -> bool:
        """Whether this node layer's features are."""
        return self.nodes is None or layer in self.nodes

    def has_edges(self, layer: str) -> bool:
        """Whether the edges that leave this node layer are."""
        return self.edges is None or layer in self.edges

    def schedule(self, n_features: int) -> list[int] | None:
        """Numbers of kept features that are scored whatever comes out."""
        return kept_schedule(n_features) if self.every_number else None


def ablation_steps(
    chain: Chain,
    data: EvaluationData,
    bases: Mapping[str, Basis],
    edges: Mapping[str, Float[Tensor, "feature_out feature_in"]],
    tolerances: Sequence[float],
    memory_budget: int,
    which: Ablated | None = None,
) -> Generator[Evaluation, None, Ablations]:
    """Node ablation of every node layer but the last, edge ablation of those with edges, evaluation by evaluation.

    Of those that `which` names.
    """
    which = which or Ablated()
    ablations = Ablations(unablated_score(chain, data, memory_budget))
    streams = replace(chain, on_chunk=unwatched).streams(data.inputs, memory_budget)
    for index, (layer, next_layer) in enumerate(pairwise(chain.node_layers)):
        basis, next_basis = bases[layer], bases[next_layer]
        rest = (tolerances, ablations.test_score, streams[index].memory_budget, streams[index])
        if which.has_nodes(layer):
            of_nodes = node_ablation_steps(chain, data, index, basis, which.schedule(basis.n_features), *rest)
            ablations.nodes[layer] = yield from labelled("node", layer, of_nodes)
        if layer in edges and which.has_edges(layer):
            of_edges = edge_ablation_steps(chain, data, index, (basis, next_basis), edges[layer], *rest)
            ablations.edges[layer] = yield from labelled("edge", layer, of_edges)
    return ablations


def labelled(
    kind: AblationKind, layer: str, steps: Generator[tuple[int, float], None, Result]
) -> Generator[Evaluation, None, Result]:
    """The same evaluations with what they are of."""
    while True:
        try:
            kept, score = next(steps)
        except StopIteration as end:
            return end.value
        yield Evaluation(kind, layer, kept, score)


def ablate(
    graph: InteractionGraph,
    chain: Chain,
    data: EvaluationData,
    tolerances: Sequence[float] = TOLERANCES,
    memory_budget: int = MEMORY_BUDGET,
) -> Ablations:
    """How many features and edges of a graph its model needs, on held-out data.

    Args:
        graph: of this chain, bases fitted on other data.
        chain: in the dtype and on the device to evaluate in; float32 is the published code's.
        data: inputs as the chain takes them and how outputs are scored, such as `accuracy(inputs, labels)`.
        tolerances: how much worse than the model's own score is as good; in the score's units.
        memory_budget: bytes that one chunk's working set may take.

    Raises ValueError where the graph has other node layers than the chain, or of another width, and for inputs that the
    chain does not take.
    """
    if graph.node_layers != chain.node_layers:
        raise ValueError(
            f"a graph of {', '.join(graph.node_layers)} and a chain of {', '.join(chain.node_layers)}; "
            "expected the same node layers"
        )
    activations = first_activations(chain, data.inputs)
    for layer, activation in zip(chain.node_layers, activations, strict=True):
        of_graph, of_chain = graph.bases[layer].d, activation.shape[-1]
        if of_graph != of_chain:
            raise ValueError(
                f"{layer}: {of_graph} coordinates in the graph, {of_chain} in the chain; expected the graph's own chain"
            )
    one = activations[0]
    bases = {layer: basis.to(device=one.device, dtype=one.dtype) for layer, basis in graph.bases.items()}
    edges = {layer: strength.to(one.device) for layer, strength in graph.edges.items()}
    return carried_out(ablation_steps(chain, data, bases, edges, tolerances, memory_budget))
