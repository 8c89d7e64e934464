"""What a report says of how sure a difference is: which runs are pairs, what is one model, and what is left out."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from running import MID, PRE, few_settings, report_of, write_run

from experiments.evidence.corrections import CORRECTIONS
from experiments.pipeline.ablations import ablations_from_json
from experiments.pipeline.json_files import write_json
from experiments.report import command_line, main
from experiments.reporting.evidence_pairs import unreached

LIB, PCA = (60, 70, 90), (100, 100, 100)
TOTAL = "edges/needed_0.001/total"


def written(
    folder: Path, method: str, seed: int, metrics: Mapping[str, Any], half: str | None = None, **model: Any
) -> Path:
    """One run; of a half of the data where it is named."""
    settings = few_settings(method, seed, **model) | {"analysis": {"n_examples": None, "half": half}}
    checkpoint = Path(str(model.get("checkpoint"))).stem
    return write_run(folder / "runs" / f"{method}_{seed}_{half}_{checkpoint}", settings, dict(metrics))


def evidence_rows(tmp_path: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """Rows of `evidence.csv` by methods and metric."""
    report_of(tmp_path)
    with (tmp_path / "report" / "evidence.csv").open(encoding="utf-8") as file:
        return {(row["method"], row["against"], row["metric"]): row for row in csv.DictReader(file)}


class TestThreeModels:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for seed, (ours, theirs) in enumerate(zip(LIB, PCA, strict=True)):
            for method, count in (("pca", theirs), ("lib", ours), ("svd", theirs + 1)):
                metrics = {TOTAL: count, f"edges/needed_0.001/{PRE}": count - 1, f"edges/needed_0.001/{MID}": 1}
                metrics |= {"graph/modularity": 0.5 if method == "lib" else 0.25, f"edges/hoyer/{PRE}": count / 200}
                written(tmp_path, method, seed, metrics)
        return tmp_path

    def test_rows_are_of_every_pair_of_methods_lib_first(self, folder):
        rows = evidence_rows(folder)
        assert {key[:2] for key in rows} == {("lib", "pca"), ("lib", "svd"), ("pca", "svd")}
        row = rows["lib", "pca", TOTAL]
        assert (row["n"], row["n_less"], row["n_more"], row["p"], row["decided"]) == ("3", "3", "0", "0.25", "False")
        assert (row["kind"], row["tolerance"], row["layer"]) == ("edges/needed", "0.001", "total")
        assert float(row["ratio"]) == pytest.approx(0.378 ** (1 / 3))
        assert (row["median_difference"], row["interval"]) == ("-30.0", "t")
        assert (row["fewest_models"], row["models_if_all_agree"], row["models_at_effect"]) == ("6", "6", "7")
        assert row["sentence"] == (
            "over all node layers, accuracy - 0.001: LIB needs fewer edges than PCA in 3 of 3 models (exact sign test "
            "p = 0.25, two-sided: undecided); ratio 0.723, 95 % interval 0.435 to 1.2 over models."
        )

    def test_layers_are_corrected_for_each_other_and_totals_are_not(self, folder):
        rows = evidence_rows(folder)
        assert rows["lib", "pca", TOTAL]["n_tests"] == "1"
        layer = rows["lib", "pca", f"edges/needed_0.001/{PRE}"]
        assert (layer["n_tests"], layer["p"], layer["corrected_p"]) == ("2", "0.25", "0.5")
        assert rows["lib", "pca", f"edges/hoyer/{PRE}"]["n_tests"] == "1"

    def test_the_command_takes_another_correction(self, folder, capsys):
        main([str(folder / "runs"), "--out", str(folder / "other"), "--correction", "benjamini-hochberg"])
        capsys.readouterr()
        with (folder / "other" / "evidence.csv").open(encoding="utf-8") as file:
            rows = {(row["against"], row["metric"]): row for row in csv.DictReader(file) if row["method"] == "lib"}
        assert rows["pca", f"edges/needed_0.001/{PRE}"]["corrected_p"] == "0.5"
        assert rows["pca", f"edges/needed_0.001/{PRE}"]["fewest_models"] == "6"
        assert evidence_rows(folder)["lib", "pca", f"edges/needed_0.001/{PRE}"]["fewest_models"] == "7"
        assert "by Benjamini and Hochberg" in (folder / "other" / "report.md").read_text(encoding="utf-8")

    def test_equal_ones_are_called_equal(self, folder):
        row = evidence_rows(folder)["lib", "pca", f"edges/needed_0.001/{MID}"]
        assert (row["p"], row["low"], row["rank_biserial"], row["fewest_models"]) == ("1.0", "", "", "")
        assert f"{MID}, accuracy - 0.001: LIB needs as many edges as PCA in all 3 models" in row["sentence"]

    def test_measures_without_a_unit_are_compared_by_their_difference(self, folder):
        row = evidence_rows(folder)["lib", "pca", "graph/modularity"]
        assert (row["scale"], row["mean_difference"], row["low"]) == ("difference", "0.25", "")
        assert "difference 0.25, no interval, being the same in every model" in row["sentence"]

    def test_the_report_shows_the_whole_and_what_would_decide(self, folder):
        text, _, _ = report_of(folder)
        section = text.partition("### Evidence: modular_addition\n")[2]
        assert (
            "| edges needed, 0.001 | LIB, PCA | 3 | 3 | 0 | -30 | ratio 0.723 | 0.435 to 1.2 | 0.25 | -1 |" in section
        )
        assert "| edges needed, 0.001 | LIB, PCA | 3 | 6 | 6 | 7 |" in section
        assert "PCA, SVD" not in section, "methods are compared with LIB"
        assert "Over models, in all: LIB needs fewer edges than PCA in 3 of 3 models (exact sign test p = 0.25" in text
        page = (folder / "report" / "report.html").read_text(encoding="utf-8")
        assert "<summary>Evidence</summary>" in page
        assert "<summary>Layer by layer</summary>" in page
        assert 'href="evidence.csv"' in page


class TestWhatIsOneModel:
    def n_models(self, folder: Path) -> str:
        return evidence_rows(folder)["lib", "pca", TOTAL]["n"]

    def test_halves_of_a_seed_s_data_are_averaged(self, tmp_path):
        for method, counts in (("lib", (60, 80)), ("pca", (100, 120))):
            for half, count in zip(("first", "second"), counts, strict=True):
                written(tmp_path, method, 0, {TOTAL: count, "graph/modularity": 0.5}, half)
        row = evidence_rows(tmp_path)["lib", "pca", TOTAL]
        assert (row["n"], row["median_difference"]) == ("1", "-40.0")
        assert "in the one model compared (70 against 110)" in row["sentence"]
        text, _, _ = report_of(tmp_path)
        assert "Of one model: nothing is said of others." in text
        assert "nothing is said of others. It takes at least 6 models" in text
        assert "undecided" not in text

    def test_a_half_that_one_method_lacks_is_in_no_mean(self, tmp_path):
        written(tmp_path, "lib", 0, {TOTAL: 60}, "first")
        for half, count in (("first", 100), ("second", 900)):
            written(tmp_path, "pca", 0, {TOTAL: count}, half)
        assert evidence_rows(tmp_path)["lib", "pca", TOTAL]["median_difference"] == "-40.0"

    def test_a_pretrained_one_is_the_same_whatever_the_seed(self, tmp_path):
        for seed in range(3):
            for method in ("lib", "pca"):
                written(tmp_path, method, seed, {TOTAL: 50 + seed}, kind="pretrained_transformer", name="gpt2")
        assert self.n_models(tmp_path) == "1"

    @pytest.mark.parametrize(("checkpoints", "n"), [("ab", "2"), ("aa", "1")])
    def test_a_checkpoint_is_a_model(self, tmp_path, checkpoints, n):
        for seed, name in enumerate(checkpoints):
            for method in ("lib", "pca"):
                written(tmp_path, method, seed, {TOTAL: 50}, checkpoint=f"{name}.safetensors")
        assert self.n_models(tmp_path) == n

    def test_a_model_that_one_method_did_not_run_on_is_left_out_and_named(self, tmp_path):
        for method, seeds in (("lib", (0, 1, 2)), ("pca", (1, 2, 3))):
            for seed in seeds:
                written(tmp_path, method, seed, {TOTAL: 50 + seed if method == "lib" else 90})
        row = evidence_rows(tmp_path)["lib", "pca", TOTAL]
        assert (row["n"], row["left_out"]) == ("2", "2")
        assert "2 models left out, of which only one method has a value" in row["sentence"]

    def test_without_a_common_model_there_is_no_evidence(self, tmp_path):
        written(tmp_path, "lib", 0, {TOTAL: 60})
        written(tmp_path, "pca", 1, {TOTAL: 100})
        assert evidence_rows(tmp_path) == {}
        assert "### Evidence" not in report_of(tmp_path)[0]

    def test_nor_of_one_method(self, tmp_path):
        written(tmp_path, "lib", 0, {TOTAL: 60})
        assert evidence_rows(tmp_path) == {}


ABLATED = {
    "test_score": 0.9,
    "node_ablation": {},
    "nodes_needed": {},
    "edge_ablation": {PRE: {"10": 0.88, "5": 0.5}, MID: {"8": 0.9, "4": 0.9}},
    "edges_needed": {PRE: {"0.001": 10, "0.05": 10}, MID: {"0.001": 4, "0.05": 4}},
}


class TestUnreached:
    def test_counts_that_say_nothing_are_known_with_their_totals(self):
        assert unreached(ablations_from_json(ABLATED)) == {f"edges/needed_0.001/{PRE}", TOTAL}
        worse = ABLATED | {"score": {"name": "cross-entropy", "lower_is_better": True}}
        assert unreached(ablations_from_json(worse)) == set()
        nan = ABLATED | {"edge_ablation": {PRE: {"10": None}, MID: {"8": 0.9}}}
        assert unreached(ablations_from_json(nan)) == {
            f"edges/needed_{tolerance}/{where}" for tolerance in ("0.001", "0.05") for where in (PRE, "total")
        }

    def test_they_are_no_evidence(self, tmp_path):
        for seed in range(3):
            for method in ("lib", "pca"):
                run = written(tmp_path, method, seed, {TOTAL: 14, "edges/needed_0.05/total": 14})
                if (method, seed) == ("pca", 1):
                    write_json(run / "ablations.json", ABLATED)
        rows = evidence_rows(tmp_path)
        assert (rows["lib", "pca", TOTAL]["n"], rows["lib", "pca", TOTAL]["left_out"]) == ("2", "1")
        assert rows["lib", "pca", "edges/needed_0.05/total"]["n"] == "3"


def test_the_command_s_corrections_are_those_there_are():
    (choices,) = (action.choices for action in command_line()._actions if action.dest == "correction")
    assert choices is not None
    assert tuple(choices) == tuple(CORRECTIONS)


def test_one_run_s_report_imports_no_statistics(tmp_path):
    """Nor do several methods on one model: half a second that nothing is gained for."""
    from running import command

    for method in ("lib", "pca"):
        written(tmp_path, method, 0, {TOTAL: 60, "graph/modularity": 0.2})
    code = "import sys; from experiments.report import main; main(['runs']); sys.exit('scipy.stats' in sys.modules)"
    assert command(tmp_path, "-c", code, program=()).returncode == 0
