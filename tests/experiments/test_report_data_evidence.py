"""What a report says of the data's part: halves that bases are fitted on, and which test examples were drawn."""

from __future__ import annotations

import csv
from math import exp, log
from pathlib import Path

import pytest
from running import PRE, few_settings, report_of, write_run

from experiments.evidence.comparison import compared
from experiments.evidence.noise_floor import noise_floor
from experiments.evidence.pairs import Pairs

TOTAL = "edges/needed_0.001/total"
LAYER = f"edges/needed_0.001/{PRE}"


def written(folder: Path, method: str, metrics: dict, half: str | None = None, seed: int = 0) -> None:
    settings = few_settings(method, seed) | {"analysis": {"n_examples": None, "half": half}}
    write_run(folder / "runs" / f"{method}_{seed}_{half}", settings, metrics)


def section(folder: Path) -> str:
    return report_of(folder)[0].partition("### Evidence: modular_addition\n")[2]


class TestFloor:
    def test_counts_are_apart_by_a_factor(self):
        floor = noise_floor([(50.0, 100.0), (30.0, 30.0)], "ratio")
        assert floor is not None
        assert (floor.apart, floor.n_pairs) == (pytest.approx(log(2) / 2), 2)
        assert floor.text == f"a factor of {exp(log(2) / 2):.4g}"
        assert floor.times(0.5) == pytest.approx(2) == floor.times(2.0)

    def test_measures_between_fixed_ends_by_a_difference(self):
        floor = noise_floor([(0.5, 0.7), (0.4, 0.3)], "difference")
        assert floor is not None
        assert (floor.apart, floor.text) == (pytest.approx(0.15), "0.15")
        assert floor.times(-0.6) == pytest.approx(4)

    def test_there_is_none_without_pairs_or_ratios(self):
        assert noise_floor([], "difference") is None
        assert noise_floor([(0.0, 3.0)], "ratio") is None

    def test_equal_halves_are_called_equal(self):
        floor = noise_floor([(3.0, 3.0)], "ratio")
        assert floor is not None
        assert floor.times(2.0) is None
        assert floor.text == "nothing"
        assert floor.sentence(compared(Pairs((1.0,), (2.0,)), "ratio")).startswith(
            "Two halves of the data do not differ (1"
        )


class TestHalves:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for method, counts in (("lib", (40, 50)), ("pca", (100, 125))):
            for half, count in zip(("first", "second"), counts, strict=True):
                written(tmp_path, method, {TOTAL: count, LAYER: count, "graph/modularity": count / 200}, half)
        return tmp_path

    def test_a_difference_is_held_against_them(self, folder):
        text = section(folder)
        assert "Two halves of the data: What a measure changes by" in text
        times = log(2.5) / log(1.25)
        row = f"| edges needed, 0.001 | LIB, PCA | 2 | a factor of 1.25 | ratio 0.4 | {times:.2g} |"
        assert row in text
        assert "| modularity | LIB, PCA | 2 | 0.0875 | difference -0.338 | 3.9 |" in text
        assert PRE not in text, "layers are in the CSV"

    def test_in_words_too(self, folder):
        text, _, _ = report_of(folder)
        words = "The difference is 4.1 times what two halves of the data differ by (a factor of 1.25 on the mean of 2"
        assert f"nothing is said of others. {words}" in text
        with (folder / "report" / "evidence.csv").open(encoding="utf-8") as file:
            rows = {row["metric"]: row for row in csv.DictReader(file)}
        assert words in rows[LAYER]["sentence"]
        assert (rows[LAYER]["half_pairs"], float(rows[LAYER]["halves_apart"])) == ("2", pytest.approx(log(1.25)))
        assert float(rows[LAYER]["times_halves"]) == pytest.approx(log(2.5) / log(1.25))

    def test_of_one_method_alone_they_are_apart_all_the_same(self, tmp_path):
        for half, count in (("first", 40), ("second", 50)):
            written(tmp_path, "lib", {TOTAL: count, LAYER: count}, half)
        text = section(tmp_path)
        assert "| edges needed, 0.001 | LIB | 1 | a factor of 1.25 |" in text
        assert "times" not in text
        assert "<h3>Two halves of the data</h3>" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")

    def test_other_models_and_one_half_are_no_halves(self, tmp_path):
        for method in ("lib", "pca"):
            written(tmp_path, method, {TOTAL: 40}, "first", seed=0)
            written(tmp_path, method, {TOTAL: 50}, "second", seed=1)
        text, _, _ = report_of(tmp_path)
        assert "Two halves of the data" not in text
        assert "halves of the data differ" not in text


class TestTestExamples:
    def ends(self, low: int, high: int | None) -> dict:
        return {"edges/needed_low_0.001/total": low, "edges/needed_high_0.001/total": high}

    def test_every_run_s_counts_stand_with_their_intervals(self, tmp_path):
        written(tmp_path, "lib", {TOTAL: 848} | self.ends(814, 1935))
        written(tmp_path, "pca", {TOTAL: 963} | self.ends(900, None), seed=1)
        written(tmp_path, "svd", {TOTAL: 999})
        text = section(tmp_path)
        assert "Needed counts over test examples: Needed counts over all node layers" in text
        assert "not which models, which data were fitted on" in text
        assert "| LIB | seed 0 | edges | 848 (814 to 1,935) |" in text
        assert "| PCA | seed 1 | edges | 963 (900 to –) |" in text
        assert "| SVD |" not in text.partition("Needed counts over test examples")[2].partition("## ")[0]
        page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
        assert "<h3>Needed counts over test examples</h3>" in page

    def test_ends_are_no_metrics_to_average_but_stand_in_the_long_table(self, tmp_path):
        written(tmp_path, "lib", {TOTAL: 848} | self.ends(814, 935))
        text, (table,), _ = report_of(tmp_path)
        assert table.keys() == {TOTAL}
        assert "needed_low_0.001" not in text
        long = (tmp_path / "report" / "metrics.csv").read_text(encoding="utf-8")
        assert "edges/needed_low_0.001/total,edges/needed_low,0.001,total,814" in long

    def test_without_any_there_is_no_such_table(self, tmp_path):
        written(tmp_path, "lib", {TOTAL: 848})
        assert "### Evidence" not in report_of(tmp_path)[0]
