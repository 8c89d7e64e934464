"""The stages of one model: each as the library carries it out, and the results that the next one needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.cases import Case
from libcore.ablation import AblationCurve, edge_ablation, node_ablation, strongest_edges, unablated_score
from libcore.ablation.masked_scores import masked_scores
from libcore.ablation.schedule import kept_schedule
from libcore.basis import Basis
from libcore.graph import interaction_edges
from libcore.methods.lib import fit_lib
from libcore.statistics import LayerStatistics, chain_statistics

STAGES = ("statistics", "basis", "edges", "node ablation", "edge ablation")


@dataclass
class Stages:
    """The stages on one case, in this order.

    Attributes:
        case: what they are carried out on.
        fit_dtype, ablation_dtype: of activations, Jacobians and edges, and of ablations.
        statistics, bases, edges: results, once their stage was carried out.
    """

    case: Case
    fit_dtype: torch.dtype = torch.float64
    ablation_dtype: torch.dtype = torch.float32
    statistics: dict[str, LayerStatistics] = field(default_factory=dict)
    bases: dict[str, Basis] = field(default_factory=dict)
    edges: dict[str, Tensor] = field(default_factory=dict)
    test_score: float = 0.0

    def compute(self, stage: str) -> Callable[[], Any]:
        """What carries a stage out."""
        return {
            "statistics": self.find_statistics,
            "basis": self.find_bases,
            "edges": self.find_edges,
            "node ablation": self.ablate_nodes,
            "edge ablation": self.ablate_edges,
        }[stage]

    def find_statistics(self) -> dict[str, LayerStatistics]:
        """Moments of all node layers."""
        chain, budget = self.case.chain(self.fit_dtype), self.case.settings.memory_budget
        self.statistics = chain_statistics(chain, self.case.inputs, budget)
        return self.statistics

    def find_bases(self) -> dict[str, Basis]:
        """LIB of all node layers."""
        chain = self.case.chain(self.fit_dtype)
        self.bases = fit_lib(chain, self.case.inputs, self.statistics, self.case.settings)
        return self.bases

    def find_edges(self) -> dict[str, Tensor]:
        """Edges of all layer pairs."""
        chain, budget = self.case.chain(self.fit_dtype), self.case.settings.memory_budget
        self.edges = interaction_edges(chain, self.case.inputs, self.bases, memory_budget=budget)
        return self.edges

    def find_score(self) -> float:
        """Of the model as it is."""
        chain = self.case.chain(self.ablation_dtype)
        self.test_score = unablated_score(chain, self.case.test, self.case.settings.memory_budget)
        return self.test_score

    def ablate_nodes(self) -> dict[str, AblationCurve]:
        """Node ablation of the case's node layers."""
        self.find_score()
        return {layer: self.node_curve(index) for index, layer in self.ablated_layers()}

    def ablate_edges(self) -> dict[str, AblationCurve]:
        """Edge ablation of the case's node layers."""
        self.find_score()
        return {layer: self.edge_curve(index) for index, layer in self.ablated_layers()}

    def node_curve(self, index: int, numbers: list[int] | None = None) -> AblationCurve:
        """Of one node layer; at these numbers of features alone where they are given."""
        chain, basis = self.case.chain(self.ablation_dtype), self.ablation_bases(index)[0]
        schedule, tolerances = kept_schedule(basis.n_features), self.case.tolerances
        if numbers is not None:
            schedule, tolerances = numbers, ()
        budget = self.case.settings.memory_budget
        return node_ablation(chain, self.case.test, index, basis, schedule, tolerances, self.test_score, budget)

    def edge_curve(self, index: int) -> AblationCurve:
        """Of one layer pair."""
        chain, budget = self.case.chain(self.ablation_dtype), self.case.settings.memory_budget
        bases, edges = self.ablation_bases(index), self.edges[chain.node_layers[index]]
        return edge_ablation(chain, self.case.test, index, bases, edges, self.case.tolerances, self.test_score, budget)

    def edge_scores(self, index: int, numbers: Sequence[int]) -> dict[int, float]:
        """Of one layer pair, with these numbers of edges kept."""
        chain, budget = self.case.chain(self.ablation_dtype), self.case.settings.memory_budget
        bases, edges = self.ablation_bases(index), self.edges[chain.node_layers[index]]
        score_of = masked_scores(chain, self.case.test, index, bases, budget)
        return {kept: score_of(strongest_edges(edges, kept, bases[0].has_constant)) for kept in numbers}

    def ablation_bases(self, index: int) -> tuple[Basis, Basis]:
        """Of the layer and the next, in the dtype of ablations."""
        layers = self.case.chain(self.fit_dtype).node_layers
        first, second = (self.bases[layer].to(dtype=self.ablation_dtype) for layer in layers[index : index + 2])
        return first, second

    def ablated_layers(self) -> list[tuple[int, str]]:
        """Number and name of the node layers that are ablated."""
        layers = self.case.chain(self.fit_dtype).node_layers
        return [(index, layers[index]) for index in self.case.ablated]


def evaluations(curves: dict[str, AblationCurve]) -> int:
    """Scores that ablations have asked for."""
    return sum(len(curve.score_by_kept) for curve in curves.values())
