"""Ablation: what is kept, what is scored, and how many features and edges are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import slow_reference
import torch
from tiny_models import AMPLE, BUDGETS, random_activation, random_chain
from torch import Generator, Tensor

from libcore import ablate, fit
from libcore.ablation import (
    Ablated,
    AblationCurve,
    EvaluationData,
    ablation_steps,
    accuracy,
    edge_ablation,
    node,
    node_ablation,
    unablated_score,
)
from libcore.ablation import masked_scores as scoring
from libcore.ablation.bisection import bisection_steps
from libcore.ablation.evaluation import number_of_largest
from libcore.ablation.node import node_ablation_steps
from libcore.ablation.plan import plan_ablations
from libcore.ablation.schedule import Bracket, ladder
from libcore.ablation.steps import carried_out
from libcore.ablation.whole_model import Evaluation
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.graph import interaction_edges
from libcore.methods import FitSettings
from libcore.methods.lib import fit_lib
from libcore.parallel import shares_for
from libcore.sections import MaskedEvaluation
from libcore.sections.kept import kept_evaluation
from libcore.sections.masked import masked_evaluation
from libcore.statistics import chain_statistics

TOLERANCES = (0.05, 0.25, 0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_accuracy_takes_the_first_of_equal_logits_and_a_nan_for_the_largest(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1, 3, 3], [0, 0, 0], [2, 1, torch.nan], [-3, -1, -2]], dtype=dtype)[:, None]
    assert torch.equal(number_of_largest(logits[:, -1]), logits[:, -1].argmax(-1))
    data = accuracy(torch.zeros(4, 1), torch.tensor([1, 0, 2, 0]))
    assert data.score_sum(logits.requires_grad_(), 0, 4) == 3


class Setting:
    """A chain with its LIB, and held-out inputs scored by agreement with labels that the model mostly gets right."""

    def __init__(self, generator: Generator) -> None:
        self.chain: Chain = random_chain(generator)
        self.fitted_on = fitted_on = random_activation(generator, 12, 3, 4)
        self.inputs = random_activation(generator, 40, 3, 4)
        output = self.chain.activation(self.inputs, 3)
        self.labels = output.argmax(-1)
        self.labels[:4] = (self.labels[:4] + 1) % output.shape[-1]
        statistics = chain_statistics(self.chain, fitted_on, AMPLE)
        self.bases: dict[str, Basis] = fit_lib(self.chain, fitted_on, statistics, FitSettings())
        self.edges = interaction_edges(self.chain, fitted_on, self.bases)
        self.data = EvaluationData(self.inputs, self.score_sum)
        self.score_by_kept: dict[tuple[int, int], float] = {}

    def score_sum(self, output: Tensor, start: int, stop: int) -> float:
        """Share of positions right, summed over examples."""
        return (output.argmax(-1) == self.labels[start:stop]).double().mean(1).sum().item()

    def score(self, output: Tensor) -> float:
        """Mean score of outputs on all inputs."""
        return sum(self.score_sum(output[x : x + 1], x, x + 1) for x in range(len(output))) / len(output)

    def score_of_kept_features(self, layer: int, kept: int) -> float:
        """One example at a time through feature space."""
        if (found := self.score_by_kept.get((layer, kept))) is not None:
            return found
        basis = self.bases[self.chain.node_layers[layer]]
        outputs = []
        for x in range(len(self.inputs)):
            features = self.chain.activation(self.inputs[x : x + 1], layer) @ basis.to_basis
            features[..., kept:] = 0.0
            outputs.append(self.chain.output_from(features @ basis.from_basis, layer))
        return self.score_by_kept.setdefault((layer, kept), self.score(torch.cat(outputs)))

    def score_of_mask(self, layer: int, mask: Tensor) -> float:
        """Every output feature from its own masked inputs, one at a time."""
        basis, next_basis = (self.bases[self.chain.node_layers[index]] for index in (layer, layer + 1))
        features = self.chain.activation(self.inputs, layer) @ basis.to_basis
        masked = slow_reference.masked_outputs(
            self.chain.sections[layer], features, basis.from_basis, next_basis.to_basis, mask
        )
        return self.score(self.chain.output_from(masked @ next_basis.from_basis, layer + 1))

    def node_ablation(self, layer: int, memory_budget: int = AMPLE) -> AblationCurve:
        basis = self.bases[self.chain.node_layers[layer]]
        schedule = range(basis.n_features + 1)
        return node_ablation(self.chain, self.data, layer, basis, schedule, TOLERANCES, self.test_score, memory_budget)

    def edge_ablation(self, layer: int, memory_budget: int = AMPLE) -> AblationCurve:
        names = self.chain.node_layers[layer : layer + 2]
        bases = (self.bases[names[0]], self.bases[names[1]])
        return edge_ablation(
            self.chain, self.data, layer, bases, self.edges[names[0]], TOLERANCES, self.test_score, memory_budget
        )

    @property
    def test_score(self) -> float:
        return unablated_score(self.chain, self.data, AMPLE)


@pytest.fixture(scope="module")
def setting() -> Setting:
    """Not to be changed."""
    return Setting(Generator().manual_seed(0))


@pytest.mark.parametrize("memory_budget", BUDGETS)
def test_unablated_score_is_the_models(setting: Setting, memory_budget: int) -> None:
    expected = setting.score(setting.chain.activation(setting.inputs, 3))
    assert 0.9 <= expected < 1.0
    assert unablated_score(setting.chain, setting.data, memory_budget) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("memory_budget", [1, 5000, AMPLE])
@pytest.mark.parametrize("layer", range(4))
def test_node_ablation_is_one_example_at_a_time(setting: Setting, layer: int, memory_budget: int) -> None:
    curve = setting.node_ablation(layer, memory_budget)
    assert sorted(curve.score_by_kept) == list(range(setting.bases[setting.chain.node_layers[layer]].n_features + 1))
    for kept, score in curve.score_by_kept.items():
        assert score == pytest.approx(setting.score_of_kept_features(layer, kept), abs=1e-12)


@pytest.mark.parametrize("layer", range(4))
def test_needed_features_are_the_fewest_within_tolerance(setting: Setting, layer: int) -> None:
    curve = setting.node_ablation(layer)
    assert set(curve.needed) == set(TOLERANCES)
    for tolerance, needed in curve.needed.items():
        enough = [kept for kept, score in curve.score_by_kept.items() if score >= setting.test_score - tolerance - 1e-9]
        assert needed == min(enough)


def test_keeping_all_features_is_the_model(setting: Setting) -> None:
    for layer in range(4):
        curve = setting.node_ablation(layer)
        assert curve.score_by_kept[max(curve.score_by_kept)] == pytest.approx(setting.test_score, abs=1e-12)


def test_node_ablation_follows_its_schedule_and_tells_what_it_scored(setting: Setting) -> None:
    seen: list[tuple[int, float]] = []
    steps = node_ablation_steps(
        setting.chain, setting.data, 1, setting.bases["middle"], [0, 2], [], setting.test_score, AMPLE
    )
    curve = carried_out(steps, seen.append)
    assert list(curve.score_by_kept) == [0, 2]
    assert seen == list(curve.score_by_kept.items())


@pytest.mark.parametrize("memory_budget", [1, 5000, AMPLE])
@pytest.mark.parametrize("layer", range(3))
def test_edge_ablation_is_one_output_feature_at_a_time(setting: Setting, layer: int, memory_budget: int) -> None:
    edges = setting.edges[setting.chain.node_layers[layer]]
    curve = setting.edge_ablation(layer, memory_budget)
    assert curve.score_by_kept
    for kept, score in curve.score_by_kept.items():
        mask = slow_reference.strongest_edges(edges, kept, has_constant=True)
        assert score == pytest.approx(setting.score_of_mask(layer, mask), abs=1e-12)


@pytest.mark.parametrize("layer", range(3))
def test_needed_edges_are_within_tolerance_and_one_fewer_was_not(setting: Setting, layer: int) -> None:
    curve = setting.edge_ablation(layer)
    edges = setting.edges[setting.chain.node_layers[layer]]
    n_edges = edges[:, 1:].numel()
    for tolerance, needed in curve.needed.items():
        enough = setting.test_score - tolerance - 1e-9
        assert 1 <= needed <= n_edges
        assert setting.score_of_mask(layer, slow_reference.strongest_edges(edges, needed, True)) >= enough
        if needed > 1:
            assert setting.score_of_mask(layer, slow_reference.strongest_edges(edges, needed - 1, True)) < enough


@pytest.mark.parametrize("layer", range(3))
def test_more_edges_than_there_are_is_one_evaluation(setting: Setting, layer: int) -> None:
    """The published bracket goes on beyond all edges, where nothing changes any more."""
    everything_is_too_little = 2.0
    section_in, section_out = (setting.bases[name] for name in setting.chain.node_layers[layer : layer + 2])
    edges = setting.edges[setting.chain.node_layers[layer]]
    curve = edge_ablation(
        setting.chain, setting.data, layer, (section_in, section_out), edges, (0.0,), everything_is_too_little, AMPLE
    )
    n_edges = edges.shape[0] * (edges.shape[1] - int(section_in.has_constant))
    assert max(curve.score_by_kept) == curve.needed[0.0] == n_edges


@pytest.mark.parametrize("n_features", [3, 4])
@pytest.mark.parametrize("layer", range(3))
def test_edges_are_tried_by_bisection_of_the_published_bracket_from_below(
    setting: Setting, layer: int, n_features: int
) -> None:
    """The bracket is as wide as coordinates go, not features, of which the last may be left out."""
    chain, names = setting.chain, setting.chain.node_layers[layer : layer + 2]
    whole, next_whole = (setting.bases[name] for name in names)
    few = Basis(whole.to_basis[:, :n_features], whole.from_basis[:n_features], whole.importance, has_constant=True)
    edges = setting.edges[names[0]][:, :n_features]
    rest = (TOLERANCES, setting.test_score, AMPLE)
    curve = edge_ablation(chain, setting.data, layer, (few, next_whole), edges, *rest)
    n_edges = edges[:, 1:].numel()

    def is_enough(kept: int, tolerance: float) -> bool:
        return setting.data.within(curve.score_by_kept[min(kept, n_edges)], setting.test_score, tolerance)

    upwards = list(
        takewhile_inclusive(lambda kept: not is_enough(kept, min(TOLERANCES)), ladder(whole.d * next_whole.d))
    )
    expected = [min(kept, n_edges) for kept in upwards]
    for tolerance in TOLERANCES:
        bracket = Bracket(0, whole.d * next_whole.d)
        while (middle := bracket.middle) is not None:
            # As published, but for numbers above the first of those upwards that is enough, which are not tried.
            first = next((kept for kept in upwards if is_enough(kept, tolerance)), None)
            above = first is not None and middle > first
            if not above:
                expected.append(min(middle, n_edges))
            bracket = bracket.halved(middle, above or is_enough(middle, tolerance))
        assert curve.needed[tolerance] == min(bracket.enough, n_edges)
    assert list(curve.score_by_kept) == list(dict.fromkeys([*expected, n_edges]))


def takewhile_inclusive(condition: Callable[[int], bool], numbers: list[int]) -> Iterator[int]:
    """As `itertools.takewhile`, with the first that does not fulfil the condition."""
    for number in numbers:
        yield number
        if not condition(number):
            return


def test_outputs_whose_mask_did_not_change_are_not_evaluated_again(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[int] = []

    def counted(*arguments: Any) -> MaskedEvaluation:
        evaluate = masked_evaluation(*arguments)

        def counting(mask: Tensor, outputs: Tensor | None = None) -> Tensor:
            evaluated.append(len(mask))
            return evaluate(mask, outputs)

        return counting

    monkeypatch.setattr(scoring, "masked_evaluation", counted)
    names = setting.chain.node_layers[1:3]
    bases = (setting.bases[names[0]], setting.bases[names[1]])
    score_of = scoring.masked_scores(setting.chain, setting.data, 1, bases, AMPLE)
    mask = torch.ones(bases[1].n_features, bases[0].n_features, dtype=torch.bool)
    fewer = mask.clone()
    fewer[1, 2] = False
    scores = [score_of(each) for each in (mask, mask, fewer, mask)]
    n_shares = shares_for(torch.get_num_threads(), len(setting.inputs))
    assert evaluated == [len(mask)] * n_shares + [1] * 2 * n_shares
    expected = [setting.score_of_mask(1, each) for each in (mask, mask, fewer, mask)]
    assert scores == pytest.approx(expected, abs=1e-12)
    passing = scoring.masked_scores(setting.chain, setting.data, 1, bases, memory_budget=5000)
    assert [passing(each) for each in (mask, mask, fewer, mask)] == pytest.approx(expected, abs=1e-12)


def test_features_that_no_output_keeps_are_not_computed(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is held: of pixels and few edges, nearly none is needed."""
    first, second, *_ = setting.chain.node_layers[1:]
    bases = setting.bases[first], setting.bases[second]
    seen: list[tuple[int, int]] = []
    evaluation = scoring.masked_evaluation

    def counted(section, features, basis, next_basis, memory_budget):
        seen.append((features.shape[-1], basis.n_features))
        return evaluation(section, features, basis, next_basis, memory_budget)

    monkeypatch.setattr(scoring, "masked_evaluation", counted)
    mask = torch.zeros(bases[1].n_features, bases[0].n_features, dtype=torch.bool)
    mask[0, 2] = mask[1, 2] = mask[1, 3] = True
    score = scoring.masked_scores(setting.chain, setting.data, 1, bases, memory_budget=5000)
    score(mask)
    assert set(seen) == {(3, 3)}  # the constant and the two


def test_needed_counts_do_not_depend_on_the_memory_budget(setting: Setting) -> None:
    assert setting.node_ablation(1, 1).needed == setting.node_ablation(1).needed
    assert setting.edge_ablation(1, 1).needed == setting.edge_ablation(1).needed


def test_of_scores_where_less_is_better_the_same_features_and_edges_are_needed(generator: Generator) -> None:
    setting = Setting(generator)
    by_layer = [(setting.node_ablation(layer), setting.edge_ablation(layer)) for layer in range(3)]
    right = setting.data

    def error_sum(output: Tensor, start: int, stop: int) -> float:
        return stop - start - right.score_sum(output, start, stop)

    setting.data = EvaluationData(right.inputs, error_sum, lower_is_better=True, score_name="error")
    assert setting.test_score == pytest.approx(1.0 - unablated_score(setting.chain, right, 1), abs=1e-12)
    for layer, expected in enumerate(by_layer):
        for curve, of_right in zip((setting.node_ablation(layer), setting.edge_ablation(layer)), expected, strict=True):
            assert curve.needed == of_right.needed
            assert len(set(curve.needed.values())) > 1
            assert curve.score_by_kept == pytest.approx({kept: 1.0 - s for kept, s in of_right.score_by_kept.items()})


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_a_score_is_within_its_tolerance_on_the_side_that_is_worse(lower_is_better: bool) -> None:
    sign = 1.0 if lower_is_better else -1.0
    data = EvaluationData(torch.zeros(1), lambda *_: 0.0, lower_is_better).first(1)
    assert data.lower_is_better is lower_is_better
    assert data.within(2.0 + sign * 0.25, 2.0, 0.25)
    assert not data.within(2.0 + sign * 0.26, 2.0, 0.25)
    assert data.within(2.0 - sign * 100.0, 2.0, 0.25)
    assert not data.within(float("nan"), 2.0, 0.25)


@pytest.mark.parametrize(
    ("lower_is_better", "score", "test_score", "tolerance"),
    [(False, 0.1, 0.8, 0.7), (False, 499 / 1000, 549 / 1000, 0.05), (True, 0.8, 0.1, 0.7), (True, 2.18, 2.17, 0.01)],
)
def test_a_score_that_is_worse_by_the_tolerance_is_within_it_whatever_the_round_off(
    lower_is_better: bool, score: float, test_score: float, tolerance: float
) -> None:
    """`0.8 - 0.7` is more than `0.1`, `0.1 + 0.7` less than `0.8`."""
    worse = test_score + tolerance if lower_is_better else test_score - tolerance
    assert (score > worse) if lower_is_better else (score < worse)
    assert score == pytest.approx(worse, abs=1e-15)
    data = EvaluationData(torch.zeros(1), lambda *_: 0.0, lower_is_better)
    assert data.within(score, test_score, tolerance)
    just_too_bad = 1e-9 if lower_is_better else -1e-9
    assert not data.within(score + just_too_bad, test_score, tolerance)


class TestSteps:
    """Evaluations come one by one, no more than were planned, and the curve is what they were."""

    @pytest.mark.parametrize("tolerances", [[], [0.05], TOLERANCES])
    def test_of_a_whole_model(self, setting: Setting, tolerances: list[float]) -> None:
        chain = setting.chain
        seen: list[Evaluation] = []
        steps = ablation_steps(chain, setting.data, setting.bases, setting.edges, tolerances, AMPLE)
        ablations = carried_out(steps, seen.append)
        plan = plan_ablations(chain, setting.bases, setting.edges, tolerances)
        assert ablations.test_score == setting.test_score
        assert (tuple(ablations.nodes), tuple(ablations.edges)) == (chain.node_layers[:-1],) * 2
        for kind, curves in (("node", ablations.nodes), ("edge", ablations.edges)):
            for layer, curve in curves.items():
                steps_of_curve = {step.kept: step.score for step in seen if (step.kind, step.layer) == (kind, layer)}
                assert steps_of_curve == curve.score_by_kept
                assert len(steps_of_curve) <= plan.curves[kind, layer].most
        assert len(seen) == sum(len(c.score_by_kept) for c in (*ablations.nodes.values(), *ablations.edges.values()))
        for index in range(3):
            layer = chain.node_layers[index]
            if tuple(tolerances) == TOLERANCES:
                assert ablations.nodes[layer].needed == setting.node_ablation(index).needed
                assert ablations.edges[layer] == setting.edge_ablation(index)

    def test_of_some_node_layers(self, setting: Setting) -> None:
        """Those named are ablated as among all; of the others there is nothing, neither done nor planned."""
        chain, (first, middle, last) = setting.chain, setting.chain.node_layers[:-1]
        which = Ablated(nodes=[middle], edges=[first, last])
        seen: list[Evaluation] = []
        steps = ablation_steps(chain, setting.data, setting.bases, setting.edges, TOLERANCES, AMPLE, which)
        ablations = carried_out(steps, seen.append)
        assert ablations.nodes == {middle: setting.node_ablation(1)}
        assert ablations.edges == {first: setting.edge_ablation(0), last: setting.edge_ablation(2)}
        plan = plan_ablations(chain, setting.bases, setting.edges, TOLERANCES, which)
        assert set(plan.curves) == {("node", middle), ("edge", first), ("edge", last)}
        assert {(step.kind, step.layer) for step in seen} == set(plan.curves)

    def test_features_by_bisection(self, setting: Setting) -> None:
        """Where scores grow with the number it finds what trying every number finds, with fewer evaluations."""
        chain, basis = setting.chain, setting.bases["middle"]
        n, growing = basis.n_features, EvaluationData(setting.inputs, lambda output, start, stop: 0.0)
        scores = {kept: kept / n for kept in range(n + 1)}
        which = Ablated(every_number=False)
        for needed in range(1, n + 1):
            steps = bisection_steps(scores.__getitem__, n, n, [1 - needed / n], lambda s, t: growing.within(s, 1.0, t))
            curve = carried_out(steps)
            assert curve.needed == {1 - needed / n: needed}
            assert all(score == scores[kept] for kept, score in curve.score_by_kept.items())
            plan = plan_ablations(chain, setting.bases, {}, [1 - needed / n], which)
            assert len(curve.score_by_kept) <= plan.curves["node", "middle"].most
        steps = ablation_steps(chain, setting.data, setting.bases, {}, TOLERANCES, AMPLE, which)
        for index, curve in enumerate(carried_out(steps).nodes.values()):
            for tolerance, needed in curve.needed.items():
                within = setting.score_of_kept_features(index, needed) >= setting.test_score - tolerance - 1e-12
                assert within or needed == max(curve.score_by_kept)
                before = setting.score_of_kept_features(index, needed - 1) >= setting.test_score - tolerance - 1e-12
                assert not before

    def test_a_model_that_needs_everything_costs_all_that_was_planned(self, setting: Setting) -> None:
        basis = setting.bases["middle"]
        plan = plan_ablations(setting.chain, setting.bases, setting.edges, [0.0])
        seen: list[tuple[int, float]] = []
        carried_out(node_ablation_steps(setting.chain, setting.data, 1, basis, [], [0.0], 2.0, AMPLE), seen.append)
        assert len(seen) == plan.curves["node", "middle"].most == basis.n_features + 1


def test_of_a_graph_by_the_front_door(setting: Setting) -> None:
    graph = fit(setting.chain, setting.fitted_on, memory_budget=AMPLE)
    found = ablate(graph, setting.chain, setting.data, TOLERANCES, AMPLE)
    assert {layer: curve.needed for layer, curve in found.edges.items()} == {
        layer: setting.edge_ablation(index).needed for index, layer in enumerate(setting.chain.node_layers[:-1])
    }
    with pytest.raises(
        ValueError, match=r"a graph of before, middle.* and a chain of before, output; expected the same"
    ):
        ablate(graph, setting.chain.restricted_to(["before", "output"]), setting.data)


def test_what_ablations_prepare_is_shared_out_too(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operation by operation, torch's own threads would spin beside each other after every one."""
    setting, seen, before = Setting(generator), dict[str, set[int]](), torch.get_num_threads()

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **rest: Any) -> Any:
            seen.setdefault(name, set()).add(torch.get_num_threads())
            return function(*arguments, **rest)

        return call

    activations_of = Chain.activations

    def activations(chain: Chain, inputs: Tensor) -> Iterator[Tensor]:
        if len(inputs) > 1:  # an example gives shapes
            seen.setdefault("activations", set()).add(torch.get_num_threads())
        return activations_of(chain, inputs)

    monkeypatch.setattr(Chain, "activations", activations)
    monkeypatch.setattr(scoring, "masked_evaluation", watched("masked", masked_evaluation))
    monkeypatch.setattr(node, "kept_evaluation", watched("kept", kept_evaluation))
    torch.set_num_threads(2)
    try:
        steps = ablation_steps(setting.chain, setting.data, setting.bases, setting.edges, TOLERANCES, AMPLE)
        carried_out(steps)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {"activations": {1}, "masked": {1}, "kept": {1}}
