"""The parts that a sparse gauge is made of: Jacobians, mixings, descent, choice."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tiny_models import AMPLE, BUDGETS, largest_difference, random, random_activation, random_chain, random_orthogonal
from torch import Generator, Tensor

from libcore.ablation import unablated_score
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.eigen import Truncation
from libcore.estimators.completeness import chain_completeness
from libcore.fit_settings import FitSettings
from libcore.gauge import jacobians
from libcore.gauge.choice import MOST_PREDICTIONS, OwnPredictions
from libcore.gauge.jacobians import PairJacobians, attributions, joined
from libcore.gauge.leading import MOST_OUTPUTS, leading_by_layer
from libcore.gauge.mixed_basis import mixed_bases
from libcore.gauge.mixing import MOST_CONDITION, FreeMixings, Mixing, Rotations
from libcore.gauge.optimisation import LAST_EPSILON, RATE, SparsityLoss, epsilon_at, rate_at, sparse_mixings
from libcore.gauge.sample import sampled_jacobians
from libcore.gauge.split import split_inputs
from libcore.graph import interaction_edges
from libcore.methods import METHODS
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import FunctionSection
from libcore.statistics import LayerStatistics, chain_statistics

SETTINGS = FitSettings(truncation=Truncation("absolute", 1e-12), memory_budget=AMPLE)


class Case:
    """A chain with its LIB, all of whose features lead."""

    def __init__(self, generator: Generator, positions: int = 3, n: int = 40) -> None:
        self.chain, self.inputs = random_chain(generator), random_activation(generator, n, positions, 4)
        self.statistics = chain_statistics(self.chain, self.inputs, AMPLE)
        self.bases: dict[str, Basis] = METHODS["lib"](self.chain, self.inputs, self.statistics, SETTINGS)
        self.leading = leading_by_layer(self.bases, self.statistics, 0.0, 64)

    def random_mixings(self, generator: Generator) -> dict[str, Mixing]:
        """Any invertible ones, of all node layers."""
        forward = {layer: random(generator, len(columns), len(columns)) for layer, columns in self.leading.items()}
        return {layer: Mixing(matrix, torch.linalg.inv(matrix)) for layer, matrix in forward.items()}


class TestJacobians:
    @pytest.mark.parametrize("quadrature", [GRADIENT, Quadrature.of("trapezoidal", 3)])
    @pytest.mark.parametrize("positions", [3, 6])
    def test_edges_in_any_gauge_are_those_of_the_mixed_bases(
        self, generator: Generator, positions: int, quadrature: Quadrature
    ) -> None:
        """With more positions than features, which are then written as so many, too."""
        case = Case(generator, positions)
        settings = FitSettings(SETTINGS.truncation, quadrature, memory_budget=AMPLE)
        pairs = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, settings)
        for mixings in ({}, case.random_mixings(generator)):
            mixed = mixed_bases(case.bases, case.statistics, case.leading, mixings)
            expected = interaction_edges(case.chain, case.inputs, mixed, quadrature)
            for pair, (layer, after) in zip(pairs, pairwise(case.chain.node_layers), strict=True):
                edges = pair.edges(mixings.get(layer), mixings.get(after))
                variable = expected[layer][mixed[after].variable, 1:]
                # Mixed bases are sorted anew.
                assert largest_difference(edges.flatten().sort().values, variable.flatten().sort().values) < 1e-10
                if not mixings:
                    assert largest_difference(edges, variable) < 1e-10

    def test_only_positions_that_are_read_are_kept(self, generator: Generator) -> None:
        case = Case(generator)
        pairs = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, SETTINGS)
        assert [tuple(pair.jacobian.shape) for pair in pairs] == [(80, 3, 3, 3), (80, 3, 1, 3), (80, 5, 1, 3)]

    @pytest.mark.parametrize("budget", BUDGETS)
    def test_chunks_do_not_matter(self, generator: Generator, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
        case = Case(generator, 6)
        expected = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, SETTINGS)
        monkeypatch.setattr(jacobians, "BYTES_IN_CACHE", budget)
        streams = case.chain.streams(case.inputs, budget)
        for index, (layer, after) in enumerate(pairwise(case.chain.node_layers)):
            positions = list(range(2))
            pair = jacobians.pair_jacobians(
                case.chain.sections[index],
                streams[index],
                (case.bases[layer], case.bases[after]),
                (case.leading[layer], case.leading[after]),
                GRADIENT,
                positions,
            )
            assert largest_difference(pair.edges(), expected[index].edges()) < 1e-12

    def test_of_few_output_positions_the_expected_edges_are_the_same(self, generator: Generator) -> None:
        case, averages = Case(generator), torch.zeros(5, 3).double()
        whole = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, SETTINGS)[2]
        for seed in range(20):
            settings = FitSettings(SETTINGS.truncation, memory_budget=AMPLE, seed=seed)
            pair = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 1, settings)[2]
            assert len(pair.jacobian) == len(case.inputs)
            averages += pair.edges() / 20
        assert largest_difference(averages, whole.edges()) < 0.5

    def test_inputs_are_as_many_as_the_budget_holds(self, generator: Generator) -> None:
        """A third of half of the budget for each pair, and a third of that for the Jacobians themselves."""
        case = Case(generator)
        # Numbers of one input: two output positions each, that depend on three, one and one input positions.
        values = [2 * 3 * 3 * (3 + 1), 2 * 1 * 3 * (3 + 1), 2 * 1 * 3 * (5 + 1)]
        for budget in (1, 3 * 2 * 3 * 8 * 7 * values[0], AMPLE):
            settings = FitSettings(SETTINGS.truncation, memory_budget=budget)
            pairs = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, settings)
            expected = [min(40, max(1, budget // (3 * 2 * 3 * 8 * of_pair))) for of_pair in values]
            assert [len(pair.jacobian) // 2 for pair in pairs] == expected
            assert [pair.nbytes for pair in pairs] == [8 * n * v for n, v in zip(expected, values, strict=True)]

    def test_completeness_is_the_same_in_any_gauge(self, generator: Generator) -> None:
        """Attributions of all features add up to the same change, mixed as the features that they are to."""
        case = Case(generator)
        pairs = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, SETTINGS)
        mixings = case.random_mixings(generator)
        for pair, (layer, after) in zip(pairs, pairwise(case.chain.node_layers), strict=True):
            sums = attributions(pair.jacobian, pair.features, None, None).sum(2)
            mixed = attributions(pair.jacobian, pair.features, mixings[layer], mixings[after]).sum(2)
            assert largest_difference(mixed, sums @ mixings[after].forward) < 1e-10
        rotations = {layer: Mixing(turn, turn.T) for layer, turn in self.turns(generator, case).items()}
        rotated = mixed_bases(case.bases, case.statistics, case.leading, rotations)
        rule = Quadrature.of("gauss_legendre", 3)
        plain, after = (chain_completeness(case.chain, case.inputs, b, rule, AMPLE) for b in (case.bases, rotated))
        assert all(after[layer] < 10 * plain[layer] + 1e-12 for layer in plain)

    def turns(self, generator: Generator, case: Case) -> dict[str, Tensor]:
        return {layer: random_orthogonal(generator, len(columns)) for layer, columns in case.leading.items()}


class TestMixings:
    def test_rotations_are_orthogonal_and_start_where_they_are_told(self, generator: Generator) -> None:
        start = random_orthogonal(generator, 4)
        family = Rotations(start)
        assert torch.equal(family().forward.detach(), start)
        family.parameters[0].data = random(generator, 4, 4)
        mixing = family()
        assert largest_difference(mixing.forward @ mixing.forward.T, torch.eye(4).double()) < 1e-12
        assert torch.equal(mixing.backward, mixing.forward.T)

    def test_whitened_rotations_are_orthogonal_but_for_scales(self, generator: Generator) -> None:
        importance = random(generator, 4).square() + 0.1
        family = Rotations(random_orthogonal(generator, 4), importance.rsqrt())
        family.parameters[0].data = random(generator, 4, 4)
        mixing = family()
        assert largest_difference(mixing.forward @ mixing.backward, torch.eye(4).double()) < 1e-12
        assert largest_difference(mixing.backward.norm(dim=1), torch.ones(4).double()) < 1e-12
        covariance = (mixing.forward.T * importance) @ mixing.forward
        assert largest_difference(covariance, covariance.diagonal().diag()) < 1e-12
        assert largest_difference(covariance.trace(), importance.sum()) < 1e-12

    def test_the_condition_of_free_mixings_is_bounded(self, generator: Generator) -> None:
        conditions = []
        for size in (0.1, 1.0, 100.0):
            family = FreeMixings(random_orthogonal(generator, 5))
            for parameter in family.parameters:
                parameter.data = size * random(generator, *parameter.shape)
            mixing = family()
            assert largest_difference(mixing.forward @ mixing.backward, torch.eye(5).double()) < 1e-10
            assert largest_difference(mixing.backward.norm(dim=1), torch.ones(5).double()) < 1e-12
            conditions.append(torch.linalg.cond(mixing.forward).item())
        assert max(conditions) <= MOST_CONDITION
        assert conditions[-1] > 1.2


class TestDescent:
    def test_the_loss_falls(self, generator: Generator) -> None:
        case = Case(generator)
        pairs = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, SETTINGS)
        loss = SparsityLoss.of(case.chain.node_layers, pairs, [1.0, 1.0, 0.1])
        by_hand = sum(
            weight * torch.log1p(pair.edges() / (1e-3 * pair.edges().sum())).sum()
            for weight, pair in zip([1.0, 1.0, 0.1], pairs, strict=True)
        )
        assert largest_difference(loss({}, 1e-3), torch.as_tensor(by_hand)) < 1e-12
        families = {layer: Rotations(torch.eye(3).double()) for layer in ("before", "middle", "after")}
        found = sparse_mixings(loss, families, 60)
        assert set(found) == set(families)
        assert loss(found, LAST_EPSILON) < 0.95 * loss({}, LAST_EPSILON)
        assert not any(mixing.forward.requires_grad for mixing in found.values())

    def test_of_nothing_to_mix(self, generator: Generator) -> None:
        case = Case(generator)
        pairs = sampled_jacobians(case.chain, case.inputs, case.bases, case.leading, 9, SETTINGS)
        assert sparse_mixings(SparsityLoss.of(case.chain.node_layers, pairs, [1.0] * 3), {}, 5) == {}

    def test_how_rate_and_epsilon_fall(self) -> None:
        assert (rate_at(0.0), rate_at(0.7)) == (RATE, RATE)
        assert rate_at(1.0) == pytest.approx(RATE * 0.05)
        assert (epsilon_at(0.0), epsilon_at(0.7), epsilon_at(1.0)) == pytest.approx((1e-2, 1e-4, 1e-4))
        assert epsilon_at(0.35) == pytest.approx(1e-3)


class TestChoice:
    def test_several_positions_are_scored_by_cross_entropy_to_drawn_labels(self, generator: Generator) -> None:
        case = Case(generator, n=3000)
        assert 2 * len(case.inputs) > MOST_PREDICTIONS
        logits = case.chain.output_from(case.inputs[: MOST_PREDICTIONS // 2], 0).log_softmax(-1)
        predictions = OwnPredictions.of(case.chain, case.inputs, SETTINGS)
        assert predictions.data.lower_is_better
        entropy = -(logits.exp() * logits).sum(-1).mean()
        # Labels from the model's own distribution: the cross-entropy is the entropy, but for chance.
        assert largest_difference(torch.tensor(predictions.score).double(), entropy) < 0.1
        assert len(predictions.data.inputs) == MOST_PREDICTIONS // 2
        assert predictions.score == unablated_score(case.chain, predictions.data, AMPLE)
        again = OwnPredictions.of(case.chain, case.inputs, SETTINGS)
        assert again.score == predictions.score

    def test_one_position_is_scored_by_the_largest_logit(self, generator: Generator) -> None:
        case = Case(generator)
        last = FunctionSection(lambda f: case.chain.output_from(f, 0)[:, -1:])
        one = Chain(("before", "output"), (last,), lambda f: f, last_has_constant=False)
        predictions = OwnPredictions.of(one, case.inputs, SETTINGS)
        assert (predictions.score, predictions.data.lower_is_better) == (1.0, False)
        assert unablated_score(one, predictions.data, AMPLE) == 1.0


class TestSplit:
    def test_parts_have_no_input_in_common(self) -> None:
        parts = split_inputs(torch.arange(100), 0.3, 0)
        assert (len(parts.to_fit), len(parts.to_choose)) == (70, 30)
        assert torch.equal(torch.cat([parts.to_fit, parts.to_choose]).sort().values, torch.arange(100))
        assert torch.equal(split_inputs(torch.arange(100), 0.3, 0).to_fit, parts.to_fit)
        assert not torch.equal(split_inputs(torch.arange(100), 0.3, 1).to_fit, parts.to_fit)


class TestLeading:
    def statistics(self, d: int, isolated: tuple[int, ...] = ()) -> LayerStatistics:
        return LayerStatistics(torch.zeros(d).double(), torch.eye(d).double(), 1, isolated)

    def test_by_importance_without_the_constant_and_isolated_coordinates(self) -> None:
        eye = torch.eye(6, dtype=torch.float64)
        importance = torch.tensor([9.0, 4.0, 3.0, 2.0, 1.0, 1e-6])
        basis = Basis(eye.roll(1, 1), eye.roll(1, 0), importance, has_constant=True)
        output = Basis(eye, eye, importance.flip(0), has_constant=False)
        of_layers = {"first": self.statistics(6, (1,)), "output": self.statistics(6)}
        for threshold, most, expected in (
            (0.0, 9, [1, 3, 4, 5]),
            (1e-5, 9, [1, 3, 4]),
            (0.4, 9, [1, 3]),
            (0.0, 2, [1, 3]),
        ):
            leading = leading_by_layer({"first": basis, "output": output}, of_layers, threshold, most)
            assert leading["first"].tolist() == expected
        assert leading_by_layer({"output": output}, of_layers, 0.3, 1)["output"].tolist() == [3, 4, 5]

    def test_of_many_outputs_the_most_important(self) -> None:
        eye = torch.eye(MOST_OUTPUTS + 3, dtype=torch.float64)
        importance = torch.arange(len(eye)).double() + 1
        leading = leading_by_layer(
            {"output": Basis(eye, eye, importance, False)}, {"output": self.statistics(1)}, 0.0, 1
        )
        assert leading["output"].tolist() == list(range(3, len(eye)))


def test_joined_samples_keep_all_positions(generator: Generator) -> None:
    few, many = (PairJacobians(random(generator, 3, 4, n, 5), random(generator, 3, n, 5), 0.5) for n in (1, 2))
    both = joined([few, many])
    assert both.jacobian.shape == (6, 4, 2, 5)
    assert torch.equal(both.jacobian[:3, :, :1], few.jacobian)
    assert torch.equal(both.features[3:], many.features)
    assert not both.jacobian[:3, :, 1].any()
    assert not both.features[:3, 1].any()
