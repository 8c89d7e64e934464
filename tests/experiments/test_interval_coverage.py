"""Nominal 95 % intervals hold the truth in 92 to 97 % of simulated comparisons; false claims are rare."""

from __future__ import annotations

import pytest

from experiments.evidence.coverage import coverage, main, simulated


@pytest.mark.parametrize("n_models", [5, 10, 20])
def test_the_rule_s_intervals_cover(n_models):
    """Of 300, a share of 0.95 has a standard error of 0.013."""
    found = coverage(n_models, 300, ())
    assert abs(found.rule - 0.95) < 0.03
    assert found.false_claims <= 0.06


def test_the_bootstrap_does_not_with_few_models():
    """Its percentiles are the normal's, of a spread that is too small: 84.5 % expected of five."""
    found = coverage(5, 100, ("percentile", "BCa"))
    assert max(found.by_method.values()) < 0.9


def test_no_claim_is_made_from_five_models():
    assert coverage(5, 100, ()).false_claims == 0


def test_counts_are_whole_and_the_same_each_time():
    first, again = (list(simulated(4, 3, 0.8, seed=7)) for _ in range(2))
    assert first == again
    assert all(value == round(value) for pairs in first for value in (*pairs.ours, *pairs.theirs))


def test_the_command_prints_a_table(capsys):
    main(["--comparisons", "5", "--models", "3", "6"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| models | reports' rule | t | percentile | BCa | false claims |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["3", "6"]


@pytest.mark.parametrize("arguments", [["--comparisons", "0"], ["--models", "0"], ["--seed", "-1"]])
def test_what_makes_no_sense_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "expected whole numbers" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("n_models", [3, 5, 10, 20, 50, 100])
def test_the_rule_s_intervals_cover_in_a_thousand(n_models):
    found = coverage(n_models, 1000, ())
    assert 0.92 <= found.rule <= 0.97
    assert found.false_claims <= 0.06
