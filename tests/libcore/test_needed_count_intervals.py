"""Intervals of needed counts over resampled test examples: the same counts as by brute force, in few evaluations."""

from __future__ import annotations

from math import inf

import pytest
import torch
from tiny_models import random_activation, random_chain
from torch import Generator

from libcore import fit
from libcore.ablation import ablate, accuracy, cross_entropy, resampled_needed
from libcore.ablation.by_example import ExampleCurve, ablate_by_example
from libcore.ablation.resampled_needs import plan_resampling, resampling_steps, totals
from libcore.ablation.resamples import Resamples
from libcore.ablation.sampling_error import (
    ResampledCurve,
    central_interval,
    resampled_edge_steps,
    resampled_node_steps,
)
from libcore.ablation.steps import carried_out

AMPLE = 2**27
N_RESAMPLES = 400


def curve_of(thresholds: torch.Tensor, tolerances: tuple[float, ...], n_resamples: int = N_RESAMPLES) -> ResampledCurve:
    """Example i is right from `thresholds[i]` on."""

    def scores_of(numbers):
        return (torch.tensor(list(numbers))[:, None] >= thresholds).double()

    resamples = Resamples(len(thresholds), n_resamples, AMPLE)
    return ResampledCurve(scores_of, torch.ones(len(thresholds)).double(), resamples, tolerances, False)


def by_brute_force(thresholds: torch.Tensor, tolerance: float) -> list[int]:
    kept = tuple(range(int(thresholds.max()) + 1))
    curve = ExampleCurve(kept, (torch.tensor(kept)[:, None] >= thresholds).double())
    return resampled_needed(curve, torch.ones(len(thresholds)).double(), tolerance, n_resamples=N_RESAMPLES)


@pytest.fixture
def thresholds() -> torch.Tensor:
    return torch.randint(1, 120, (60,), generator=Generator().manual_seed(2))


class TestResamples:
    def test_held_or_drawn_again_they_are_the_same(self):
        values = torch.rand(3, 40, generator=Generator().manual_seed(0))
        ample, tight = Resamples(40, 50, AMPLE), Resamples(40, 50, 4 * 40 * 8 * 3)
        assert ample.held is not None
        assert tight.held is None
        assert tight.at_a_time == 3
        torch.testing.assert_close(ample.means(values), tight.means(values))
        assert ample.means(torch.ones(1, 40)).unique().tolist() == [1.0], "as many draws as examples"

    def test_another_seed_draws_others(self):
        values = torch.rand(1, 40, generator=Generator().manual_seed(0))
        means = [Resamples(40, 50, AMPLE, seed).means(values) for seed in (0, 1)]
        assert not torch.equal(*means)


class TestOneCurve:
    def test_features_are_counted_as_by_brute_force(self, thresholds):
        steps = resampled_node_steps(curve_of(thresholds, (0.1, 0.4)), 200)
        found = carried_out(steps)
        for tolerance in (0.1, 0.4):
            assert found[tolerance].sort().values.tolist() == by_brute_force(thresholds, tolerance)

    def test_features_beyond_what_nearly_all_resamples_need_are_not_tried(self, thresholds):
        tried = []
        carried_out(resampled_node_steps(curve_of(thresholds, (0.4,)), 5000), tried.append)
        assert len(tried) < 160

    def test_edges_have_the_interval_that_brute_force_finds_in_few_evaluations(self, thresholds):
        n_edges, needed = 5000, {0.1: int(thresholds.sort().values[-7]), 0.4: int(thresholds.sort().values[-25])}
        tried = []
        found = carried_out(resampled_edge_steps(curve_of(thresholds, (0.1, 0.4)), n_edges, needed), tried.append)
        for tolerance in (0.1, 0.4):
            expected = central_interval(torch.tensor(by_brute_force(thresholds, tolerance)).double())
            assert central_interval(found[tolerance]) == expected
        assert len(tried) < 60

    def test_of_several_thresholds_it_is_the_one_next_to_the_needed_count(self):
        """Right with 5 to 9 edges and from 20 on: 20 is needed, and 5 is another threshold."""

        def scores_of(numbers):
            is_right = [5 <= number <= 9 or number >= 20 for number in numbers]
            return torch.tensor(is_right)[:, None].expand(-1, 40).double()

        resamples = Resamples(40, N_RESAMPLES, AMPLE)
        curve = ResampledCurve(scores_of, torch.ones(40).double(), resamples, (0.1, 0.2), False)
        found = carried_out(resampled_edge_steps(curve, 100, {0.1: 20, 0.2: 5}))
        assert central_interval(found[0.1]) == (20, 20)
        assert central_interval(found[0.2]) == (5, 5)

    def test_a_single_edge_is_the_least(self):
        """As the ablation counts: a model that needs none is given one."""
        curve = curve_of(torch.zeros(20).long(), (0.1,))
        assert central_interval(carried_out(resampled_edge_steps(curve, 50, {0.1: 1}))[0.1]) == (1, 1)
        assert central_interval(carried_out(resampled_edge_steps(curve, 50, {0.1: 7}))[0.1]) == (1, 1)

    def test_what_is_never_within_tolerance_has_no_upper_end(self):
        thresholds = torch.tensor([1] * 20 + [99] * 20)
        for steps in (
            resampled_node_steps(curve_of(thresholds, (0.1,)), 30),
            resampled_edge_steps(curve_of(thresholds, (0.1,)), 30, {0.1: 30}),
        ):
            assert central_interval(carried_out(steps)[0.1])[1] == inf

    def test_the_interval_holds_the_true_count_as_often_as_it_says(self):
        """Thresholds uniform over 200 numbers: the count that loses a tenth is 180."""
        generator, held = Generator().manual_seed(1), 0
        for _ in range(200):
            thresholds = torch.randint(1, 201, (150,), generator=generator)
            needed = int(thresholds.sort().values[-16])
            steps = resampled_edge_steps(curve_of(thresholds, (0.1,), 200), 1000, {0.1: needed})
            low, high = central_interval(carried_out(steps)[0.1])
            held += low <= 180 <= high
        assert 0.90 <= held / 200 <= 0.98

    def test_the_ends_leave_a_fortieth_out_on_either_side(self):
        assert central_interval(torch.arange(1, 201).double().flip(0)) == (5, 195)
        assert central_interval(torch.full((200,), 7.0)) == (7, 7)


@pytest.fixture(params=["accuracy", "cross-entropy"])
def case(request):
    """A chain with its LIB and data of either score."""
    generator = Generator().manual_seed(0)
    chain = random_chain(generator)
    graph = fit(chain, random_activation(generator, 12, 3, 4))
    inputs = random_activation(generator, 60, 3, 4)
    largest = chain.activation(inputs, 3).argmax(-1)
    data = accuracy(inputs, largest[:, -1]) if request.param == "accuracy" else cross_entropy(inputs, largest)
    return graph, chain, data


class TestWholeModel:
    TOLERANCES = (0.05, 0.25)

    def found(self, case, memory_budget: int = AMPLE, on_step=lambda step: None):
        graph, chain, data = case
        ablations = ablate(graph, chain, data, self.TOLERANCES)
        steps = resampling_steps(
            chain, data, graph.bases, graph.edges, ablations.edges, self.TOLERANCES, N_RESAMPLES, memory_budget
        )
        return ablations, carried_out(steps, on_step)

    def test_features_agree_with_all_scores_of_all_examples_resampled(self, case):
        graph, chain, data = case
        _, found = self.found(case)
        examples = ablate_by_example(graph, chain, data, self.TOLERANCES)
        assert found.nodes.keys() == found.edges.keys() == set(chain.node_layers[:-1])
        for layer, by_tolerance in found.nodes.items():
            curve = examples.nodes[layer]
            if curve.kept == tuple(range(graph.bases[layer].n_features + 1)):
                for tolerance in self.TOLERANCES:
                    expected = resampled_needed(
                        curve, examples.unablated, tolerance, data.lower_is_better, n_resamples=N_RESAMPLES
                    )
                    ours = by_tolerance[tolerance].nan_to_num(posinf=curve.kept[-1]).sort().values.tolist()
                    assert ours == expected

    def test_intervals_hold_the_needed_counts(self, case):
        ablations, found = self.found(case)
        for curves, needs in ((ablations.nodes, found.nodes), (ablations.edges, found.edges)):
            for layer, curve in curves.items():
                for tolerance, needed in curve.needed.items():
                    low, high = central_interval(needs[layer][tolerance])
                    assert low <= needed <= high

    def test_neither_budget_nor_threads_change_them(self, case):
        _, found = self.found(case)
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            _, other = self.found(case, memory_budget=30_000)
        finally:
            torch.set_num_threads(before)
        assert equal(found.nodes, other.nodes)
        assert equal(found.edges, other.edges)

    def test_totals_are_sums_over_the_same_resamples(self, case):
        _, found = self.found(case)
        for tolerance, total in totals(found.edges).items():
            expected = sum(of_layer[tolerance] for of_layer in found.edges.values())
            assert torch.equal(total, torch.as_tensor(expected))
        assert totals({}) == {}

    def test_no_more_evaluations_than_planned(self, case):
        graph, chain, _ = case
        plan = plan_resampling(chain, graph.bases, graph.edges, len(self.TOLERANCES))
        self.found(case, on_step=lambda step: plan.evaluated(step.kind, step.layer, 0.0))
        assert all(0 < curve.done <= curve.most for curve in plan.curves.values())


def equal(ours, theirs) -> bool:
    return all(
        torch.equal(counts, theirs[layer][tolerance])
        for layer, by_tolerance in ours.items()
        for tolerance, counts in by_tolerance.items()
    )
