"""What a run's stages take, by its configuration: `libcore.costs` with this run's model, data and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from experiments.config.ablated import ablated
from experiments.config.schema import RunConfig
from experiments.config.settings import chain_of, probes_of, quadrature_of
from libcore.ablation import Ablated
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.costs.ablations import Evaluated, edge_ablation_cost, node_ablation_cost, score_cost
from libcore.costs.cost import Cost, together
from libcore.costs.fitting import Fit, basis_cost, edges_cost, statistics_cost
from libcore.costs.shapes import ChainShapes
from models.analysed import AnalysedModel


@dataclass(frozen=True)
class StageCosts:
    """Of one run's stages on one chain.

    Attributes:
        features: of every node layer's basis, where it is known; by default as many as there can be.
    """

    config: RunConfig
    chain: Chain
    inputs: Tensor
    features: Sequence[int] | None = None

    @cached_property
    def shapes(self) -> ChainShapes:
        """Of the chain."""
        return ChainShapes.of(self.chain, self.inputs)

    @property
    def kept(self) -> Sequence[int]:
        """Features of every node layer."""
        return self.features or self.shapes.most_features()

    @property
    def which(self) -> Ablated:
        """What is ablated."""
        return ablated(self.config, self.chain.node_layers)

    def fit(self, n_examples: int, n_points: int = 1) -> Fit:
        """Settings as costs take them."""
        analysis, scratch = self.config.analysis, self.chain.scratch
        room = 0 if scratch is None else scratch.room()
        probes = probes_of(self.config)
        return Fit(n_examples, analysis.memory_bytes, room, n_points, analysis.estimator, probes)

    def statistics(self) -> Cost:
        """Moments."""
        return statistics_cost(self.shapes, self.fit(len(self.inputs)))

    def basis(self) -> Cost:
        """Bases. What a method does beside eigenproblems and Jacobian Grams, such as a search, is not counted."""
        method, options = self.config.method.method, self.config.method.options
        along_path = method.integrates(**options) and not method.searches
        fit = self.fit(len(self.inputs), len(quadrature_of(self.config).points) if along_path else 1)
        return basis_cost(self.shapes, fit, self.kept, of_jacobians=method.takes_jacobians)

    def edges(self) -> Cost:
        """Edges of every layer pair."""
        n_examples = min(len(self.inputs), self.config.analysis.n_edge_examples or len(self.inputs))
        fit = self.fit(n_examples, len(quadrature_of(self.config).points))
        return edges_cost(self.shapes, fit, self.kept)

    def score(self, n_examples: int) -> Cost:
        """Of the model on so many examples."""
        return score_cost(self.shapes, n_examples, self.config.analysis.memory_bytes)

    def node_ablation(self, n_examples: int) -> Cost:
        """Of the features of all node layers that are ablated, at most."""
        chosen = [index for index, layer in enumerate(self.chain.node_layers[:-1]) if self.which.has_nodes(layer)]
        return node_ablation_cost(self.shapes, self._evaluated(n_examples), chosen, self.kept)

    def edge_ablation(self, n_examples: int) -> Cost:
        """Of the edges of all layer pairs that are ablated, at most."""
        chosen = [index for index, layer in enumerate(self.chain.node_layers[:-1]) if self.which.has_edges(layer)]
        return edge_ablation_cost(self.shapes, self._evaluated(n_examples), chosen, self.kept)

    def ablation(self, n_examples: int, with_edges: bool) -> Cost:
        """The whole stage."""
        parts = [self.score(n_examples), self.node_ablation(n_examples)]
        return together(*parts, *([self.edge_ablation(n_examples)] if with_edges else []))

    def _evaluated(self, n_examples: int) -> Evaluated:
        fit, tolerances = self.fit(n_examples), self.config.analysis.tolerances or ()
        return Evaluated(n_examples, fit.memory_budget, fit.disk_room, tolerances, self.which)


def n_scored(config: RunConfig, model: AnalysedModel) -> int:
    """Examples that the model's own score takes."""
    most = config.analysis.n_score_examples
    return sum(len(split.first(most).inputs) for split in (model.train, model.test))


def features_of(chain: Chain, bases: dict[str, Basis]) -> list[int]:
    """How many every node layer's basis has."""
    return [bases[layer].n_features for layer in chain.node_layers]


def costs_of_run(config: RunConfig, model: AnalysedModel) -> dict[str, Cost]:
    """By stage, of those that the configuration asks for and whose operations can be told; ablations by kind."""
    analysis, wanted = config.analysis, config.analysis.stages
    inputs = model.fit_inputs(analysis.n_examples, analysis.half)
    fitted = StageCosts(config, chain_of(model, config, getattr(torch, config.dtype)), inputs)
    test = model.test.first(analysis.n_test_examples)
    scored = StageCosts(config, chain_of(model, config, getattr(torch, analysis.ablation_dtype)), test.inputs)
    found: dict[str, Cost] = {}
    if "score" in wanted:
        found["score"] = scored.score(n_scored(config, model))
    if wanted != ["score"]:
        found["statistics"] = fitted.statistics()
    if "basis" in wanted:
        found["basis"] = fitted.basis()
    if "edges" in wanted:
        found["edges"] = fitted.edges()
    if "ablation" in wanted:
        scored = replace(scored, features=fitted.kept)
        found["node_ablation"] = scored.node_ablation(len(test.inputs))
        if "edges" in wanted:
            found["edge_ablation"] = scored.edge_ablation(len(test.inputs))
    return found
