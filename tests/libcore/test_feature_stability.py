"""Stability of features: identical, rotated within a group, rescaled, in other coordinates, and random ones."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from libcore.basis import Basis
from libcore.stability.joint_covariance import JointCovariance, JointMoments, covariance_rank
from libcore.stability.layer import LayerStability, groups_by_importance, layer_stability
from libcore.stability.matching import chance, matched
from libcore.stability.principal_angles import principal_cosines, within_span

WIDTH = 12


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n: int, seed: int = 1) -> Tensor:
    return torch.linalg.qr(drawn(n, n, seed=seed)).Q


def basis_of(to_basis: Tensor) -> Basis:
    return Basis(to_basis, torch.linalg.pinv(to_basis), to_basis.new_ones(to_basis.shape[1]), has_constant=False)


@pytest.fixture
def gram() -> Tensor:
    """Of correlated activations whose coordinates differ in size by two orders."""
    root = drawn(WIDTH, WIDTH, seed=3) * torch.logspace(-1, 1, WIDTH, dtype=torch.float64)
    return root.T @ root


@pytest.fixture
def whitened(gram) -> Tensor:
    """Columns of uncorrelated features of variance 1."""
    return torch.linalg.inv(torch.linalg.cholesky(gram)).T


def stability(gram: Tensor, first: Tensor, second: Tensor, importance: Tensor | None = None) -> LayerStability:
    covariance = JointCovariance.of_bases(gram, basis_of(first), basis_of(second))
    spread = torch.logspace(0, -3, first.shape[1], dtype=torch.float64)
    return layer_stability(covariance, spread if importance is None else importance, WIDTH)


class TestSameFeatures:
    def test_identical_ones_match_themselves(self, gram, whitened):
        found = stability(gram, whitened[:, :5], whitened[:, :5])
        assert found.matching.partners.tolist() == [0, 1, 2, 3, 4]
        torch.testing.assert_close(found.matching.correlations, torch.ones(5).double())
        torch.testing.assert_close(found.cosines, torch.ones(5).double())
        assert (found.matching.mean, found.share_in_groups) == (pytest.approx(1), 1)
        assert found.expected.mean_match < 0.7

    def test_order_sign_and_scale_do_not_matter(self, gram, whitened):
        order, scale = torch.tensor([2, 0, 3, 1]), torch.tensor([-3.0, 1e-3, 1e4, -1.0]).double()
        found = stability(gram, whitened[:, :4], whitened[:, order] * scale)
        assert found.matching.partners.tolist() == [1, 3, 0, 2]
        torch.testing.assert_close(found.matching.correlations, torch.ones(4).double())
        torch.testing.assert_close(found.cosines, torch.ones(4).double())

    def test_nor_do_the_activations_coordinates(self, gram, whitened):
        first, second = whitened[:, :4], whitened @ rotation(WIDTH)[:, :4]
        mixing = drawn(WIDTH, WIDTH, seed=5)
        inverse = torch.linalg.inv(mixing)
        ours, theirs = (
            stability(gram, first, second),
            stability(mixing.T @ gram @ mixing, inverse @ first, inverse @ second),
        )
        torch.testing.assert_close(ours.matching.correlations, theirs.matching.correlations)
        torch.testing.assert_close(ours.cosines, theirs.cosines)


class TestRotatedWithinAGroup:
    IMPORTANCE = torch.tensor([8.0, 4.0, 3.9, 3.8, 1.0]).double()

    def test_the_group_is_found_though_its_features_are_not(self, gram, whitened):
        second = whitened[:, :5].clone()
        second[:, 1:4] = whitened[:, 1:4] @ rotation(3)
        found = stability(gram, whitened[:, :5], second, self.IMPORTANCE)
        assert [list(group.features) for group in found.groups] == [[0], [1, 2, 3], [4]]
        assert found.matching.correlations[[0, 4]].tolist() == pytest.approx([1, 1])
        assert (found.matching.correlations[1:4] < 0.99).all()
        torch.testing.assert_close(found.groups[1].cosines, torch.ones(3).double())
        torch.testing.assert_close(found.found_in_groups, torch.ones(5).double())
        assert found.share_in_groups == 1 > found.matching.share_above(0.9)

    def test_a_rotation_out_of_the_group_is_seen(self, gram, whitened):
        second = whitened[:, :5].clone()
        second[:, 3] = whitened[:, 8]
        found = stability(gram, whitened[:, :5], second, self.IMPORTANCE)
        assert found.groups[1].cosines.tolist() == pytest.approx([1, 1, 0], abs=1e-7)
        assert found.cosines.tolist() == pytest.approx([1, 1, 1, 1, 0], abs=1e-7)
        assert found.share_in_groups == pytest.approx(0.8)

    def test_groups_do_not_chain(self):
        falling = 0.95 ** torch.arange(6).double()
        assert groups_by_importance(falling, 0.1) == [range(3), range(3, 6)]
        assert groups_by_importance(falling, 0.0) == [range(i, i + 1) for i in range(6)]
        assert groups_by_importance(torch.ones(3).double(), 0.0) == [range(3)]
        assert groups_by_importance(torch.zeros(0)) == []


class TestChance:
    def test_random_features_match_as_chance_says(self, gram, whitened):
        means = [
            stability(gram, whitened[:, :6], whitened @ rotation(WIDTH, seed)[:, :6]).matching.mean
            for seed in range(30)
        ]
        expected = chance(6, 6, WIDTH)
        assert sum(means) / 30 == pytest.approx(expected.mean_match, abs=0.05)
        cosines = [
            stability(gram, whitened[:, :6], whitened @ rotation(WIDTH, seed)[:, :6]).cosines.mean().item()
            for seed in range(30)
        ]
        assert sum(cosines) / 30 == pytest.approx(expected.mean_cosine, abs=0.05)

    def test_a_random_feature_lies_in_a_group_s_span_as_far_as_is_said(self, gram, whitened):
        importance, found = torch.ones(6).double(), []
        for seed in range(40):
            one = stability(gram, whitened[:, :6], whitened @ rotation(WIDTH, seed)[:, :6], importance)
            found.append(one.found_in_groups.square().mean().item())
            assert one.expected_in_groups == pytest.approx((6 / WIDTH) ** 0.5)
        assert sum(found) / 40 == pytest.approx(6 / WIDTH, abs=0.03)

    def test_few_values_leave_few_directions(self):
        """Independent features on 8 inputs correlate as random ones among 7 directions do."""
        means, expected = [], []
        for seed in range(60):
            moments = JointMoments(3, 3)
            moments.add(*drawn(2, 8, 3, seed=seed))
            found = layer_stability(moments.covariance(), torch.ones(3).double(), 100)
            assert found.n_directions == 7
            means.append(found.matching.mean)
            expected.append(found.expected.mean_match)
        assert sum(means) / 60 == pytest.approx(sum(expected) / 60, abs=0.08)

    def test_it_falls_with_the_number_of_directions(self):
        assert chance(5, 5, 5).mean_match > chance(5, 5, 50).mean_match > chance(5, 5, 500).mean_match
        assert chance(5, 5, 5).mean_cosine == pytest.approx(1)
        with pytest.raises(ValueError, match="6 uncorrelated features among 5"):
            chance(6, 2, 5)


class TestMatching:
    def test_it_is_the_best_of_all_one_to_one(self):
        """The largest entry alone would cost the second feature its only match."""
        found = matched(torch.tensor([[0.9, 0.8], [0.85, 0.0]]))
        assert found.partners.tolist() == [1, 0]
        assert found.mean == pytest.approx(0.825)

    def test_of_fewer_features_some_are_left(self):
        found = matched(torch.tensor([[0.1], [-0.95], [0.3]]))
        assert found.partners.tolist() == [-1, 0, -1]
        assert found.mean == pytest.approx(0.95)
        assert found.share_above(0.9) == 1


class TestCovariances:
    def test_values_of_features_give_the_bases_own(self):
        values = drawn(500, WIDTH, seed=7) @ drawn(WIDTH, WIDTH, seed=8) + 100.0
        centred = values - values.mean(0)
        first, second = drawn(WIDTH, 3, seed=9), drawn(WIDTH, 4, seed=10)
        expected = JointCovariance.of_bases(centred.T @ centred / 500, basis_of(first), basis_of(second))
        moments = JointMoments(3, 4)
        for some in values.view(5, 50, 2, WIDTH):
            moments.add(some @ first, some @ second)
        found = moments.covariance()
        for ours, theirs in ((found.first, expected.first), (found.second, expected.second)):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-7)
        torch.testing.assert_close(found.cross, expected.cross, rtol=1e-9, atol=1e-7)

    def test_a_constant_feature_correlates_with_nothing(self):
        gram = torch.diag(torch.tensor([1.0, 2.0, 5.0]).double())
        basis = Basis(torch.eye(3).double()[:, [2, 0, 1]], torch.eye(3).double(), torch.ones(3), has_constant=True)
        found = JointCovariance.of_bases(gram, basis, basis).correlations()
        torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 1.0, 1.0]).double()))

    def test_features_that_depend_on_each_other_span_what_they_span(self, gram, whitened):
        first = torch.cat([whitened[:, :2], whitened[:, :1] + whitened[:, 1:2]], 1)
        covariance = JointCovariance.of_bases(gram, basis_of(first), basis_of(whitened[:, :2]))
        torch.testing.assert_close(principal_cosines(covariance), torch.ones(2).double())
        torch.testing.assert_close(within_span(covariance), torch.ones(3).double())
        assert covariance_rank(covariance.first) == 2

    def test_what_does_not_go_together_is_refused(self, gram, whitened):
        with pytest.raises(ValueError, match="a basis of 12 coordinates for activations of 5"):
            JointCovariance.of_bases(gram[:5, :5], basis_of(whitened), basis_of(whitened))
        with pytest.raises(ValueError, match="expected as many"):
            stability(gram, whitened[:, :3], whitened[:, :4])
        with pytest.raises(ValueError, match="no values"):
            JointMoments(1, 1).covariance()
