"""The report's table: mean and spread, order, and what is averaged with what."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from running import MID, OUTPUT, POST, PRE, few_settings, report_of, write_run

from experiments.pipeline.metric_keys import in_order
from experiments.reporting.comparison import Cell, compare, metrics_table, number, to_csv
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.markdown_report import markdown_table


class TestNumbers:
    def test_mean_and_sample_standard_deviation(self):
        cell = Cell((1.0, 2.0, 4.0))
        assert cell.mean == pytest.approx(7 / 3)
        assert cell.spread == pytest.approx((7 / 3) ** 0.5)
        assert cell.text() == "2.333 ± 1.528"

    def test_a_single_run_has_no_spread(self):
        cell = Cell((133.0,))
        assert (cell.spread, cell.text()) == (None, "133")

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (133.0, "133"),
            (12769.0, "12,769"),
            (0.99964, "0.9996"),
            (120.46, "120.5"),
            (12769.4, "12,769"),
            (999.96, "1000"),
            (0.0, "0"),
            (-2.0, "-2"),
        ],
    )
    def test_numbers_are_written_as_one_reads_them(self, value, written):
        assert number(value) == written

    def test_tightest_tolerance_first_and_layers_in_the_model_s_order(self):
        names = [
            f"edges/needed_{tolerance}/{layer}"
            for tolerance in ("0.00001", "0.001", "0.01", "0.05")
            for layer in (PRE, MID, POST, "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post", OUTPUT, "total")
        ]
        assert in_order(reversed(names)) == names

    def test_blocks_are_ordered_by_number(self):
        names = [f"features/kept/blocks.{block}.hook_resid_pre" for block in (0, 1, 2, 9, 10, 11)]
        assert in_order(reversed(names)) == names

    def test_layers_inside_a_block_are_in_the_order_of_their_computation(self):
        inside = ("hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized", "hook_resid_mid", "ln2.hook_scale")
        inside += ("ln2.hook_normalized", "mlp.hook_post")
        names = [f"features/kept/blocks.{block}.{place}" for block in (0, 1, 10) for place in inside]
        last = ("blocks.10.hook_resid_post", "ln_final.hook_scale", "ln_final.hook_normalized", OUTPUT)
        names += [f"features/kept/{layer}" for layer in last]
        assert in_order(reversed(names)) == names

    def test_layers_of_other_models_are_ordered_by_number(self):
        names = [f"features/kept/{layer}" for layer in ("layers.0", "layers.1", "layers.2", "layers.10", "output")]
        assert in_order(reversed(names)) == names


class TestTables:
    """Two seeds of LIB, one of PCA, and a metric that only one run has."""

    RUNS = (
        ("lib", 0, {"score/test": 0.5, "edges/needed_0.001/total": 100}),
        ("lib", 1, {"score/test": 0.7, "edges/needed_0.001/total": 104, "graph/modularity": 0.25}),
        ("pca", 0, {"score/test": 0.25, "edges/needed_0.001/total": 120, "graph/modularity": None}),
    )

    @pytest.fixture
    def comparison(self):
        return compare([FinishedRun(Path("."), few_settings(method, seed), dict(m)) for method, seed, m in self.RUNS])

    def test_markdown(self, comparison):
        assert markdown_table(metrics_table(comparison)).splitlines() == [
            "| metric | LIB (n = 2) | PCA (n = 1) |",
            "|---|---:|---:|",
            "| `score/test` | 0.6 ± 0.1414 | 0.25 |",
            "| `edges/needed_0.001/total` | 102 ± 2.828 | 120 |",
            "| `graph/modularity` | 0.25 | – |",
        ]

    def test_csv(self, comparison):
        rows = list(csv.DictReader(to_csv(comparison).splitlines()))
        assert [row["metric"] for row in rows] == ["score/test", "edges/needed_0.001/total", "graph/modularity"]
        assert float(rows[0]["lib_mean"]) == pytest.approx(0.6)
        assert float(rows[0]["lib_std"]) == pytest.approx(0.02**0.5)
        assert [rows[0][key] for key in ("lib_n", "pca_mean", "pca_std", "pca_n")] == ["2", "0.25", "", "1"]
        assert [rows[2][key] for key in ("lib_mean", "lib_std", "lib_n")] == ["0.25", "", "1"]
        assert [rows[2][key] for key in ("pca_mean", "pca_std", "pca_n")] == ["", "", "0"]

    def test_lib_stands_first(self):
        runs = [FinishedRun(Path("."), few_settings(method, 0), {}) for method in ("pca", "zebra", "lib", "another")]
        assert compare(runs).methods == ("lib", "pca", "another", "zebra")


class TestWhatIsNotAveraged:
    def assert_apart(self, tmp_path: Path, scores: tuple[float, float]) -> None:
        """Both runs are in the report, and no number is a mean of the two."""
        text, tables, _ = report_of(tmp_path)
        assert "`first`" in text.replace(f"{tmp_path}/runs/", "")
        assert "`second`" in text.replace(f"{tmp_path}/runs/", "")
        means = [float(row[key]) for table in tables for row in table.values() for key in row if key.endswith("_mean")]
        assert sorted(means) == sorted(scores)

    @pytest.mark.parametrize(
        "change",
        [
            {"analysis": {"n_examples": 20}},
            {"model": {"kind": "modular_addition", "checkpoint": None, "modulus": 59}},
            {"model": {"kind": "another", "checkpoint": None}},
            {"dtype": "float32"},
        ],
        ids=lambda change: str(next(iter(change.values()))),
    )
    def test_runs_with_other_settings(self, tmp_path, change):
        write_run(tmp_path / "runs" / "first", few_settings("lib", 0), {"score/test": 0.25})
        write_run(tmp_path / "runs" / "second", few_settings("lib", 1) | change, {"score/test": 0.75})
        self.assert_apart(tmp_path, (0.25, 0.75))

    def test_variants_of_one_method(self, tmp_path):
        """LIB with the Jacobian at the point is another method than LIB with the Jacobian along the path."""
        for name, jacobian, score in (("first", "point", 0.25), ("second", "path", 0.75)):
            config = few_settings("lib", 0) | {"method": {"name": "lib", "jacobian": jacobian}}
            write_run(tmp_path / "runs" / name, config, {"score/test": score})
        self.assert_apart(tmp_path, (0.25, 0.75))

    def test_one_checkpoint_for_each_seed_is_averaged(self, tmp_path):
        write_run(tmp_path / "runs" / "first", few_settings("lib", 0, checkpoint="a.pt"), {"score/test": 0.25})
        write_run(tmp_path / "runs" / "second", few_settings("lib", 1, checkpoint="b.pt"), {"score/test": 0.75})
        _, (table,), _ = report_of(tmp_path)
        assert (table["score/test"]["lib_mean"], table["score/test"]["lib_n"]) == ("0.5", "2")

    def test_no_checkpoint_is_lost_because_the_seed_was_left_alone(self, tmp_path):
        write_run(tmp_path / "runs" / "first", few_settings("lib", 0, checkpoint="a.pt"), {"score/test": 0.25})
        write_run(tmp_path / "runs" / "second", few_settings("lib", 0, checkpoint="b.pt"), {"score/test": 0.75})
        text, _, _ = report_of(tmp_path)
        assert "runs/first`" in text
        assert "runs/second`" in text
