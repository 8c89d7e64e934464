"""Ablations by example: their means are the ablation's scores, and resampled counts spread as order statistics do."""

from __future__ import annotations

import pytest
import torch
from tiny_models import random_activation, random_chain
from torch import Generator

from libcore import ablate, fit
from libcore.ablation import EvaluationData, ExampleCurve, ablate_by_example, accuracy, resampled_needed

TOLERANCES = (0.05, 0.25)


@pytest.fixture(params=[False, True], ids=["accuracy", "squared error"])
def case(request):
    """A chain, its LIB and data; scores that are whole, and some that are not and better lower."""
    generator = Generator().manual_seed(0)
    chain = random_chain(generator)
    graph = fit(chain, random_activation(generator, 12, 3, 4))
    inputs = random_activation(generator, 50, 3, 4)
    output = chain.activation(inputs, 3)
    if not request.param:
        return graph, chain, accuracy(inputs, output[:, -1].argmax(-1))

    def squared_error(outputs, start, stop):
        return float(((outputs - output[start:stop]) ** 2).sum())

    return graph, chain, EvaluationData(inputs, squared_error, lower_is_better=True, score_name="squared error")


def test_means_over_examples_are_the_ablation_s_scores(case):
    graph, chain, data = case
    plain, found = ablate(graph, chain, data, TOLERANCES), ablate_by_example(graph, chain, data, TOLERANCES)
    assert found.ablations.nodes.keys() == found.nodes.keys() == plain.nodes.keys()
    assert found.ablations.edges.keys() == found.edges.keys() == plain.edges.keys()
    assert found.unablated.mean().item() == pytest.approx(plain.test_score)
    for curves, expected in ((found.nodes, plain.nodes), (found.edges, plain.edges)):
        for layer, curve in curves.items():
            assert curve.kept == tuple(sorted(expected[layer].score_by_kept))
            means = dict(zip(curve.kept, curve.scores.mean(1).tolist(), strict=True))
            assert means == pytest.approx(expected[layer].score_by_kept)
            assert curve.scores.shape[1] == len(data.inputs)


def test_the_scores_do_not_depend_on_threads_and_chunks(case):
    graph, chain, data = case
    one = ablate_by_example(graph, chain, data, TOLERANCES)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = ablate_by_example(graph, chain, data, TOLERANCES, memory_budget=20_000)
    finally:
        torch.set_num_threads(before)
    for layer in one.nodes:
        torch.testing.assert_close(one.nodes[layer].scores, other.nodes[layer].scores)
        torch.testing.assert_close(one.edges[layer].scores, other.edges[layer].scores)


def thresholds_curve(thresholds: torch.Tensor) -> ExampleCurve:
    """Example i is right from `thresholds[i]` features on."""
    kept = tuple(range(int(thresholds.max()) + 1))
    return ExampleCurve(kept, (torch.tensor(kept)[:, None] >= thresholds).double())


class TestResampled:
    def test_the_needed_count_is_a_quantile_of_the_examples_thresholds(self):
        """At most 2 of 10 examples may be lost: the eighth threshold of each draw."""
        thresholds = torch.arange(1, 11)
        found = resampled_needed(thresholds_curve(thresholds), torch.ones(10).double(), 0.2, n_resamples=300, seed=3)
        generator = Generator().manual_seed(3)
        draws = (thresholds[torch.randint(10, (10,), generator=generator)] for _ in range(300))
        assert found == sorted(int(draw.sort().values[7]) for draw in draws)

    def test_its_quantiles_hold_the_true_count_as_often_as_they_say(self):
        """300 test sets of 150 examples, thresholds uniform over 200 numbers: the true 90 % quantile is 180."""
        generator = Generator().manual_seed(1)
        held = 0
        for number in range(300):
            thresholds = torch.randint(1, 201, (150,), generator=generator)
            curve, ones = thresholds_curve(thresholds), torch.ones(150).double()
            found = resampled_needed(curve, ones, 0.1, n_resamples=200, seed=number)
            held += found[5] <= 180 <= found[194]
        assert 0.90 <= held / 300 <= 0.98

    def test_lower_is_better_and_what_is_never_within(self):
        curve = ExampleCurve((0, 3, 8), torch.tensor([[5.0, 5.0], [1.0, 1.0], [0.5, 0.5]]).double())
        unablated = torch.full((2,), 0.5).double()
        assert set(resampled_needed(curve, unablated, 1.0, True, n_resamples=5)) == {3}
        assert set(resampled_needed(curve, unablated - 9, 1.0, True, n_resamples=5)) == {8}

    def test_equal_examples_leave_no_spread_and_a_seed_draws_the_same(self):
        curve = thresholds_curve(torch.tensor([4, 4, 4]))
        assert set(resampled_needed(curve, torch.ones(3).double(), 0.1, n_resamples=20)) == {4}
        curve, ones = thresholds_curve(torch.arange(1, 30)), torch.ones(29).double()
        first, again, other = (resampled_needed(curve, ones, 0.1, n_resamples=50, seed=seed) for seed in (0, 0, 1))
        assert first == again != other

    def test_what_does_not_go_together_is_refused(self):
        with pytest.raises(ValueError, match="scores of 3 examples, and 2"):
            resampled_needed(thresholds_curve(torch.tensor([1, 2, 3])), torch.ones(2).double(), 0.1)
        with pytest.raises(ValueError, match="without any number kept"):
            resampled_needed(ExampleCurve((), torch.zeros(0, 0).double()), torch.ones(2).double(), 0.1)
