"""Paired comparisons against closed forms, enumeration and scipy's own examples; what cannot be known is said."""

from __future__ import annotations

from itertools import product
from math import exp, inf, log, nan

import numpy as np
import pytest
from scipy import stats

from experiments.evidence.comparison import compared, corrected
from experiments.evidence.corrections import benjamini_hochberg, holm
from experiments.evidence.effect_sizes import rank_biserial
from experiments.evidence.exact_tests import sign_test, smallest_p, test_for, wilcoxon
from experiments.evidence.intervals import interval_of_mean
from experiments.evidence.needed_models import fewest_models, models_at_effect, models_if_all_agree
from experiments.evidence.pairs import Pairs, paired
from experiments.evidence.sentences import Wording, sentence

test_for.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]
EDGES = Wording("needs {} edges", "fewer", "more", "as many")
MODULARITY = Wording("has {} modularity", "a lower", "a higher", "the same")


def said(ours, theirs, scale="ratio", wording=EDGES) -> str:
    return sentence(compared(paired_lists(ours, theirs), scale), "LIB", "PCA", wording)


def paired_lists(ours, theirs) -> Pairs:
    return paired(dict(enumerate(ours)), dict(enumerate(theirs)))


class TestPairs:
    def test_models_without_both_values_are_left_out_and_counted(self):
        pairs = paired({0: 1, 1: None, 2: nan, 3: 4, 5: inf}, {0: 2, 1: 2, 2: 3, 4: 7})
        assert (pairs.ours, pairs.theirs, pairs.left_out) == ((1.0,), (2.0,), 4)

    def test_a_model_that_neither_has_a_value_of_is_not_missed(self):
        assert paired({0: nan, 1: 1}, {0: None, 1: 2}).left_out == 0

    def test_differences_and_log_ratios(self):
        pairs = paired_lists([2, 3], [4, 3])
        assert pairs.differences.tolist() == [-2, 0]
        assert pairs.log_ratios.tolist() == [log(0.5), 0]

    def test_round_off_is_no_difference(self):
        assert paired_lists([0.1 + 0.2], [0.3]).n_equal == 1

    def test_zeros_have_no_ratio(self):
        assert not paired_lists([0, 1], [1, 1]).have_ratios
        with pytest.raises(ValueError, match="not above zero"):
            _ = paired_lists([0, 1], [1, 1]).log_ratios


class TestExactTests:
    @pytest.mark.parametrize(("less", "more"), [(0, 0), (3, 0), (5, 0), (6, 0), (7, 1), (4, 4), (30, 11)])
    def test_sign_test_is_the_binomial_s(self, less, more):
        expected = stats.binomtest(less, less + more).pvalue if less + more else 1.0
        assert sign_test(less, more) == sign_test(more, less) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(
        "differences",
        [[1.0], [3, -1, 2], [1, 1, 1], [1, -1, 2, 2, -3], [5, 5, -5, 1, 0, 0, 2, 7], [-1, -2, -3, -4, -5, -6, 2.5]],
    )
    def test_wilcoxon_is_the_share_of_all_signs(self, differences):
        found = np.array(differences, dtype=float)
        ranks = stats.rankdata(np.abs(found[found != 0]))
        observed = abs((ranks * np.sign(found[found != 0])).sum())
        sums = [abs((ranks * signs).sum()) for signs in product((-1, 1), repeat=len(ranks))]
        assert wilcoxon(found) == pytest.approx(np.mean([total >= observed for total in sums]), rel=1e-12)

    def test_wilcoxon_of_scipy_s_own_example(self):
        heights = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75.0])
        assert wilcoxon(heights) == pytest.approx(stats.wilcoxon(heights).pvalue, rel=1e-12)
        assert wilcoxon(heights) == pytest.approx(0.041259765625)

    def test_many_differences_do_not_overflow(self):
        assert wilcoxon(np.arange(1.0, 151)) == pytest.approx(2.0**-149)

    @pytest.mark.parametrize(("n", "expected"), [(0, 1), (1, 1), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
    def test_smallest_p(self, n, expected):
        assert smallest_p(n) == sign_test(n, 0) == wilcoxon(np.arange(1.0, n + 1)) == expected

    def test_the_test_is_chosen_by_the_number_alone(self):
        assert [test_for(n) for n in (0, 5, 6, 200, 201)] == [
            "sign test",
            "sign test",
            "Wilcoxon test",
            "Wilcoxon test",
            "sign test",
        ]

    def test_of_very_many_models_the_sign_test_is_left(self):
        found = compared(paired_lists([1.0 + 0.01 * i for i in range(201)], [0.5] * 201), "ratio")
        assert (found.p_wilcoxon, found.test, found.p, found.corrected_p) == (
            None,
            "sign test",
            found.p_sign,
            found.p_sign,
        )
        assert found.is_decided
        assert found.interval is not None
        assert found.interval.method == "BCa"


class TestCorrections:
    def test_holm(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.5, 0.9]) == [1.0, 1.0]
        assert holm([]) == []

    def test_benjamini_hochberg(self):
        """R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "BH")."""
        assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
        assert benjamini_hochberg([]) == []

    def test_layers_are_corrected_for_each_other(self):
        one = compared(paired_lists(range(1, 8), range(2, 9)), "ratio")
        assert one.is_decided
        family = corrected([one] * 4)
        assert [member.corrected_p for member in family] == [pytest.approx(4 / 64)] * 4
        assert not family[0].is_decided
        assert "p = 0.016, two-sided, 0.062 corrected for 4 layers: undecided" in sentence(family[0], "A", "B", EDGES)
        assert (family[0].fewest_models, corrected([one] * 4, "benjamini-hochberg")[0].fewest_models) == (8, 6)
        assert corrected([one] * 4, "benjamini-hochberg")[0].is_decided


class TestEffectSizes:
    def test_rank_biserial(self):
        assert rank_biserial(np.array([1.0, 2, 3])) == 1
        assert rank_biserial(np.array([-3.0, 1, 2, 0])) == pytest.approx((1 + 2 - 3) / 6)
        assert rank_biserial(np.zeros(3)) is None

    def test_ratio_of_geometric_means_and_its_interval(self):
        """Closed form: t on the logarithms."""
        ours, theirs = [60, 70, 90, 40], [100, 100, 100, 100]
        found = compared(paired_lists(ours, theirs), "ratio")
        logs = np.log(np.array(ours) / 100)
        half = stats.t.ppf(0.975, 3) * logs.std(ddof=1) / 2
        assert found.estimate == pytest.approx(exp(logs.mean()))
        assert found.interval is not None
        assert found.interval.low == pytest.approx(exp(logs.mean() - half))
        assert found.interval.high == pytest.approx(exp(logs.mean() + half))
        assert found.median_difference == -35


class TestIntervals:
    def test_student_s(self):
        values = np.array([1.0, 2, 4])
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        found = interval_of_mean(values)
        assert found is not None
        assert (found.low, found.high) == pytest.approx(tuple(expected))
        assert found.method == "t"

    def test_many_values_are_bootstrapped_the_same_each_time(self):
        values = np.random.default_rng(0).exponential(size=150)
        found = interval_of_mean(values)
        assert found == interval_of_mean(values)
        expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(1)).confidence_interval
        assert found is not None
        assert (found.method, found.low, found.high) == (
            "BCa",
            pytest.approx(expected.low, abs=0.01),
            pytest.approx(expected.high, abs=0.01),
        )
        percentile = interval_of_mean(values, "percentile")
        assert percentile is not None
        assert percentile.method == "percentile"

    @pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0] * 5, [0.0] * 5, [0.1 + 0.2, 0.3, 0.3]])
    def test_none_where_there_is_none(self, values):
        for method in (None, "t", "BCa", "percentile"):
            assert interval_of_mean(np.array(values), method) is None


class TestNeededModels:
    @pytest.mark.parametrize(("n_tests", "expected"), [(1, 6), (2, 7), (3, 7), (4, 8), (20, 10)])
    def test_fewest(self, n_tests, expected):
        assert fewest_models(n_tests) == expected

    @pytest.mark.parametrize(("less", "more", "expected"), [(3, 0, 6), (2, 1, 9), (5, 0, 6), (0, 0, 6), (0, 6, 6)])
    def test_if_all_further_agree(self, less, more, expected):
        assert models_if_all_agree(less, more, 1) == expected
        p_before = sign_test(min(less, more), expected - 1 - min(less, more))
        assert sign_test(min(less, more), expected - min(less, more)) <= 0.05 < p_before

    def test_at_the_observed_effect(self):
        """The paired t-test needs 34 pairs at half a standard deviation (Cohen 1988; G*Power), Wilcoxon's 36."""
        assert models_at_effect(0.5, 1) == models_at_effect(-0.5, 1) == 36
        assert models_at_effect(100.0, 1) == 6
        assert [models_at_effect(effect, 1) for effect in (0.001, 0.0, None)] == [None] * 3

    def test_of_what_is_undecided(self):
        found = compared(paired_lists([60, 70, 90], [100, 100, 100]), "ratio")
        assert (found.fewest_models, found.models_if_all_agree) == (6, 6)
        assert found.models_at_effect == models_at_effect(found.standardized, 1) == 7


class TestSentences:
    def test_all_of_a_few_models(self):
        assert said([60, 70, 90], [100, 100, 100]) == (
            "LIB needs fewer edges than PCA in 3 of 3 models (exact sign test p = 0.25, two-sided: undecided); "
            "ratio 0.723, 95 % interval 0.435 to 1.2 over models."
        )

    def test_decided(self):
        text = said([60, 70, 90, 65, 75, 85], [100] * 6)
        assert "fewer edges than PCA in 6 of 6 models (exact Wilcoxon test p = 0.031, two-sided: decided)" in text

    def test_both_directions_and_equal_ones_are_counted(self):
        text = said([60, 120, 100, 70], [100] * 4)
        assert "fewer edges than PCA in 2 of 4 models, more in 1, as many in 1 (exact sign test p = 1," in text

    def test_a_few_large_differences_decide_nothing_against_most_models(self):
        differences = [0.001 * i for i in range(1, 17)] + [-0.1 * i for i in range(1, 15)]
        found = compared(paired_lists([1 + difference for difference in differences], [1] * 30), "difference")
        assert (found.pairs.n_more, found.pairs.n_less) == (16, 14)
        assert found.p < 0.05
        text = sentence(found, "A", "B", EDGES)
        assert text.startswith("A needs more edges than B in 16 of 30 models, fewer in 14")
        assert ": undecided)" in text

    def test_one_model(self):
        assert said([63], [103]) == (
            "LIB needs fewer edges than PCA in the one model compared (63 against 103), which says nothing of others."
        )

    def test_two_models(self):
        text = said([63, 70], [103, 100])
        assert "p = 0.5, two-sided: undecided); ratio 0.654, no interval from 2 models." in text

    def test_equal_everywhere(self):
        assert said([4, 4, 4], [4, 4, 4]) == "LIB needs as many edges as PCA in all 3 models: nothing to decide."

    def test_the_same_difference_everywhere(self):
        text = said([5, 5, 5], [10, 10, 10])
        assert "3 of 3 models" in text
        assert "ratio 0.5, no interval, being the same in every model." in text

    def test_zeros_have_a_difference_in_place_of_a_ratio(self):
        text = said([0, 5, 7], [10, 10, 9])
        assert "difference -5.67, 95 % interval" in text
        assert "nan" not in text.lower()

    def test_missing_values_are_named(self):
        assert said([60, 70, nan], [100, 100, 100]).endswith(
            "from 2 models; 1 model left out, of which only one method has a value."
        )

    def test_other_measures(self):
        text = said([0.5, 0.6, 0.7], [0.4, 0.4, 0.4], "difference", MODULARITY)
        assert text.startswith("LIB has a higher modularity than PCA in 3 of 3 models")
        assert "difference 0.2, 95 % interval -0.0484 to 0.448 over models" in text

    def test_relations_with_an_article(self):
        assert "A has a lower modularity than B in 2 of 4 models, higher in 1, the same in 1 (" in sentence(
            compared(paired_lists([0.1, 0.2, 0.5, 0.4], [0.4] * 4), "difference"), "A", "B", MODULARITY
        )
        assert said([0.4, 0.4], [0.4, 0.4], "difference", MODULARITY).startswith("LIB has the same modularity as PCA")

    def test_no_pair_at_all(self):
        with pytest.raises(ValueError, match="no model"):
            compared(paired_lists([nan], [1]), "ratio")
