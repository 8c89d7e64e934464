"""`python -m experiments.stability`: which features two runs share, of one model and of two, on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from running import MID, POST, PRE, QUICK, TOY_MODELS, few_settings, run_here, write_run

from experiments.feature_stability.compared_runs import read_runs
from experiments.feature_stability.covariances import covariances_by_activations, covariances_by_gram
from experiments.feature_stability.pairs import stability_of
from experiments.stability import CSV, JSON, main

LAYERS = (PRE, MID, POST)
ONLY_A_BASIS = ("analysis.stages=[basis]", "tracking.mode=disabled")
Results = tuple[str, list[dict], list[dict]]


def finished(outputs: Path, name: str, *overrides: str) -> Path:
    """A run that the command has ended."""
    run = run_here(outputs, name, *overrides)
    (run / "status.json").write_text('{"status": "finished"}')
    return run


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stability")


@pytest.fixture(scope="module")
def runs(outputs) -> dict[str, Path]:
    """One model on both halves and in float32, LIB and PCA, and another seed."""
    settings = {
        "lib": (),
        "float32": ("dtype=float32",),
        "first": ("analysis.half=first",),
        "second": ("analysis.half=second",),
        "pca": ("method=pca",),
        "seed": ("seed=1",),
    }
    return {name: finished(outputs, name, *QUICK, *overrides) for name, overrides in settings.items()}


def results(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str | Path) -> Results:
    """What the command prints, rows of its CSV, and its JSON."""
    main([*map(str, arguments), "--out", str(out)])
    with (out / CSV).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return capsys.readouterr().out, rows, json.loads((out / JSON).read_text(encoding="utf-8"))


class TestOneModel:
    def test_a_run_beside_itself_has_all_its_features(self, runs, tmp_path, capsys):
        printed, rows, (pair,) = results(capsys, tmp_path, runs["lib"], runs["lib"])
        assert [row["layer"] for row in rows] == list(LAYERS), "logits keep their neurons"
        for row in rows:
            assert float(row["mean_match"]) == pytest.approx(1)
            assert float(row["mean_cosine"]) == pytest.approx(1)
            assert float(row["largest_angle"]) < 1e-3
            assert row["inputs"] == ""
        total = sum(int(row["features"]) for row in rows)
        assert f"{total} of {total} leading features of one model are found again by themselves" in printed
        assert pair["sentence"] in printed
        assert f"table: {tmp_path / CSV}" in printed

    def test_another_dtype_leaves_them_as_they_are(self, runs, tmp_path, capsys):
        printed, rows, _ = results(capsys, tmp_path, runs["lib"], runs["float32"])
        assert all(float(row["mean_cosine"]) > 0.99 for row in rows)
        assert "LIB, seed 0 | LIB, seed 0, float32" in printed

    def test_every_two_runs_are_compared_and_every_feature_is_told(self, runs, tmp_path, capsys):
        _, rows, pairs = results(capsys, tmp_path, runs["first"], runs["second"], runs["pca"])
        assert [pair["second"]["title"] for pair in pairs] == ["LIB, seed 0, second half", "PCA, seed 0", "PCA, seed 0"]
        assert len(rows) == 3 * len(LAYERS)
        for pair in pairs:
            for layer in pair["layers"].values():
                lists = ("matches", "correlations", "correlations_in_groups", "angles")
                assert {len(layer[name]) for name in lists} == {layer["features"]}
                assert sorted(layer["matches"]) == list(range(layer["features"]))
                for alone, grouped in zip(layer["correlations"], layer["correlations_in_groups"], strict=True):
                    assert alone <= grouped + 1e-9 <= 1 + 2e-9
                assert 0 < layer["chance_match"] <= 1

    def test_leading_features_are_those_needed_at_the_middle_tolerance(self, runs):
        first, second = read_runs([runs["lib"], runs["pca"]])
        found = stability_of(first, second, 10, 0.1)
        for layer in LAYERS:
            needed = [run.run.metrics[f"features/needed_0.01/{layer}"] for run in (first, second)]
            kept = [run.graph.bases[layer].n_features for run in (first, second)]
            expected = min(max(needed), *kept) - 1
            assert found.layers[layer].n_features == expected, "the constant is counted among the needed"

    def test_or_those_of_nearly_all_importance_where_nothing_was_ablated(self, outputs):
        run = finished(outputs, "basis", *QUICK, "analysis.stages=[basis]")
        (one,) = read_runs([run])
        basis = one.graph.bases[PRE]
        varying = basis.importance[1 : basis.n_features]
        n = one.n_leading(PRE)
        assert varying[:n].sum() >= 0.99 * varying.sum() > varying[: n - 1].sum()

    def test_wider_groups_hold_more(self, runs, tmp_path, capsys):
        grouped = []
        for width in ("0", "0.9"):
            arguments = (runs["first"], runs["second"], f"--group-width={width}")
            _, rows, _ = results(capsys, tmp_path / width, *arguments)
            grouped.append(sum(int(row["grouped"]) for row in rows))
        assert grouped[0] < grouped[1]


class TestTwoModels:
    def test_they_are_compared_on_the_same_inputs(self, runs, tmp_path, capsys):
        printed, rows, _ = results(capsys, tmp_path, runs["lib"], runs["seed"], "--examples=30")
        assert {row["inputs"] for row in rows} == {"30"}
        assert all(float(row["mean_match"]) < 0.999 for row in rows)
        assert "of two models (on 30 inputs)" in printed

    def test_activations_say_of_one_model_what_its_gram_says(self, runs):
        """All 39 examples that bases were fitted on, and more than one chunk of them."""
        first, second = read_runs([runs["lib"], runs["pca"]])
        by_gram, by_activations = covariances_by_gram(first, second), covariances_by_activations(first, second, 39)
        for layer in LAYERS:
            torch.testing.assert_close(by_activations[layer].cross, by_gram[layer].cross, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(by_activations[layer].first, by_gram[layer].first, rtol=1e-6, atol=1e-9)


class TestRefusals:
    def refusal(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said

    def test_a_single_run(self, runs, capsys):
        assert "expected two or more" in self.refusal(capsys, runs["lib"])

    def test_what_is_no_finished_run(self, runs, tmp_path, capsys):
        assert "expected the directory of a finished run" in self.refusal(capsys, runs["lib"], tmp_path / "nowhere")
        status = {"status": "failed", "reason": "no luck"}
        failed = write_run(tmp_path / "failed", few_settings("lib", 0), status=status)
        assert "no luck" in self.refusal(capsys, runs["lib"], failed)

    def test_a_run_without_a_basis(self, runs, tmp_path, capsys):
        scored = write_run(tmp_path / "scored", few_settings("lib", 0))
        assert "no graph.safetensors" in self.refusal(capsys, runs["lib"], scored)

    def test_other_node_layers(self, runs, outputs, capsys):
        other = finished(outputs, "mlp", "model=cifar10_mlp", *TOY_MODELS["cifar10_mlp"], *ONLY_A_BASIS)
        assert "expected those of" in self.refusal(capsys, runs["lib"], other)

    def test_numbers_out_of_range(self, runs, capsys):
        two = (runs["lib"], runs["pca"])
        assert "--examples=1: expected 2 or more" in self.refusal(capsys, *two, "--examples=1")
        assert "--group-width=1.0" in self.refusal(capsys, *two, "--group-width=1")
