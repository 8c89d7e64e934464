"""The benchmark of all stages: at toy sizes everything is measured, both ways agree, and the user's errors are told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.benchmark import main
from experiments.benchmarks.attention_operations import attention_edge_operations, attention_gram_operations
from experiments.benchmarks.busy import busy_process, threads_beside_a_busy_process
from experiments.benchmarks.curve import exponent
from experiments.benchmarks.drawn_cases import decoder_architecture, decoder_chain, image_mlp
from experiments.benchmarks.machine import threads
from experiments.benchmarks.operations import gram_operations
from experiments.benchmarks.scaling import drawn_rows, first_features, mlp_chain
from experiments.benchmarks.sizes import QUICK
from experiments.benchmarks.sources import Sources
from experiments.benchmarks.stages import STAGES
from experiments.benchmarks.tally import kind_of, tallied
from experiments.benchmarks.timing import timed
from libcore.estimators import edges, jacobian_gram
from libcore.quadrature import GRADIENT

CPU = torch.device("cpu")
MODELS = ["modular addition", "CIFAR-10 MLP", "CIFAR-10 CNN", "decoder"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a quick benchmark writes."""
    base = tmp_path_factory.mktemp("benchmark")
    main(["stages", "--quick", "--runs", "1", "--output-directory", str(base / "outputs"), "--out", str(base / "out")])
    return base / "out"


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))


class TestQuick:
    def test_every_stage_of_every_model(self, results):
        assert [model["model"] for model in results["models"]] == MODELS
        for model in results["models"]:
            assert [row["stage"] for row in model["stages"]] == list(STAGES)
            for row in model["stages"]:
                assert row["runs"] == [row["seconds"]]
                assert row["peak_memory"] > 2**27 > row["added_memory"] >= 0
                assert row["ratio"] == pytest.approx(row["straightforward_seconds"] / row["seconds"])

    def test_both_ways_agree(self, results):
        for model in results["models"]:
            for row in model["stages"]:
                assert row["difference"] < (1e-5 if "ablation" in row["stage"] else 1e-10), (
                    model["model"],
                    row["stage"],
                )

    def test_shares_of_the_limit(self, results):
        assert 1e8 < results["matrix_rates"]["float64"] < results["matrix_rates"]["float32"] * 1.2
        for model in results["models"]:
            for row in model["stages"]:
                assert 0 < row["share_of_limit"] < 1.2
                assert sum(row["shares"].values()) == pytest.approx(1)
                assert "%" in row["holds_back"]

    def test_scaling(self, folder, results):
        found = [(curve["what"], curve["model"]) for curve in results["scaling"]]
        expected = [("examples", "MLP"), ("width", "MLP"), ("tokens a sequence", "decoder"), ("blocks", "decoder")]
        expected += [("output features", "MLP"), ("output features", "attention")]
        assert found[: len(expected)] == expected
        for curve in results["scaling"]:
            for stage, seconds in curve["seconds"].items():
                assert len(seconds) == len(curve["sizes"]) > 1
                assert -3 < curve["exponents"][stage] < 5
        assert set(results["flat_in_output_features"]) == {"MLP", "attention"}
        assert {path.name for path in folder.iterdir()} == {
            "benchmark.json",
            "benchmark.md",
            "memory.pdf",
            "memory.png",
            "scaling.pdf",
            "scaling.png",
            "written.json",
        }

    def test_memory(self, results, folder):
        peaks = results["memory"]["peaks"]
        assert {stage: list(map(int, of_stage)) for stage, of_stage in peaks.items()} == {
            "statistics": [16, 32, 64],
            "basis": [16, 32],
            "edges": [16, 32],
        }
        assert all(100 < megabytes < 20_000 for of_stage in peaks.values() for megabytes in of_stage.values())
        row = next(line for line in (folder / "benchmark.md").read_text().splitlines() if line.startswith("| basis"))
        assert row.count("|") == 5

    def test_float32(self, results):
        rows = {(row["model"], row["dtype"]): row for row in results["dtypes"]}
        assert {model for model, _ in rows} == set(MODELS[:2])
        for model in MODELS[:2]:
            exact, low = rows[model, "float64"], rows[model, "float32"]
            assert exact["importances"] == exact["edges"] == 0
            assert exact["same_needed"] is None
            assert 0 < low["edges"] < 1e-4
            assert low["importances"] > 0
            assert low["same_needed"] == (low["needed"] == exact["needed"])
            assert all(counts for kind in exact["needed"].values() for counts in kind.values())

    def test_the_document_says_all_of_it(self, folder, results):
        text = (folder / "benchmark.md").read_text(encoding="utf-8")
        for model in results["models"]:
            for stage in STAGES:
                assert f"| {model['model']} | {stage}" in text
        for expected in ("GFLOP/s in float64", "Load average", "threads;", "torch ", "random images", "## float32"):
            assert expected in text
        tables = [block for block in text.split("\n\n") if block.startswith("|")]
        assert len(tables) >= 4
        for table in tables:
            assert len({line.count("|") for line in table.splitlines()}) == 1


class TestOperations:
    def test_of_an_elementwise_section(self):
        d, h, k, n = 9, 32, 5, 7
        section = mlp_chain(d - 1, CPU).sections[0]
        rows = drawn_rows(n, d - 1, CPU)
        counted = gram_operations(section, rows[:1], n, first_features(d, k, rows))
        of_residual = 2 * d * d * k + 3 * d * d * k
        assert counted == of_residual + n * h * h + 2 * h * d * k + h * h * k + d * h * h + d * d * h

    def test_no_more_than_are_carried_out_where_there_are_many_examples(self):
        section, rows = mlp_chain(24, CPU).sections[0], drawn_rows(4096, 24, CPU)
        next_basis = first_features(25, 6, rows)
        counted = gram_operations(section, rows[:1], len(rows), next_basis)
        tally = gram_tally(section, rows, next_basis)
        done = tally.operations["float64"]
        # Beside the Gram of the derivatives, whose half is counted, there are pre-activations.
        assert 2 < done / counted < 3

    def test_of_attention_do_not_grow_with_features_beyond_what_heads_write(self):
        section = decoder_chain(decoder_architecture(1, 16, 11, 6), CPU)(torch.float64).sections[0]
        positions, branch = section.positions_of(torch.zeros(1, 6, 17)), section.branches[0]
        heads_write = branch.W_O.shape[0] * branch.W_O.shape[1]
        counts = [attention_gram_operations(branch, positions, 17, k) for k in (heads_write - 1, heads_write, 100)]
        assert counts[0] < counts[1] == counts[2]
        assert attention_edge_operations(branch, positions, 5, 9) > attention_edge_operations(branch, positions, 5, 8)

    def test_attention_s_edges_take_about_what_is_counted(self):
        section = decoder_chain(decoder_architecture(1, 16, 11, 6), CPU)(torch.float64).sections[0]
        rows = drawn_rows(40 * 6, 16, CPU).view(40, 6, 17)
        basis, next_basis = first_features(17, 12, rows), first_features(17, 9, rows)
        stream = stream_of(section, rows)
        tally = tallied(lambda: edges(section, stream, basis, next_basis, GRADIENT), CPU)
        counted = len(rows) * attention_edge_operations(section.branches[0], section.positions_of(rows[:1]), 12, 9)
        # Of a block of keys all pairs are taken, of which less than two thirds attend to each other.
        assert 0.4 < counted / tally.operations["float64"] < 1


def stream_of(section, rows):
    from libcore.chain import Chain

    return Chain(("from", "to"), (section,), lambda inputs: inputs, True).stream(rows, 0, 2**26)


def gram_tally(section, rows, next_basis):
    stream = stream_of(section, rows)
    return tallied(lambda: jacobian_gram(section, stream, next_basis, GRADIENT), CPU)


class TestParts:
    def test_an_exponent_is_that_of_the_upper_part(self):
        sizes = [1, 2, 4, 8, 16, 32]
        assert exponent(sizes, [3 * size**2.5 for size in sizes]) == pytest.approx(2.5)
        assert exponent(sizes, [max(size, 8) ** 2 for size in sizes]) == pytest.approx(2)
        with pytest.raises(ValueError, match="expected two or more"):
            exponent([1], [1.0])

    def test_the_median_run_counts_and_memory_is_the_highest(self):
        lengths = iter([0.0, 0.05, 0.01])

        def compute() -> float:
            time.sleep(next(lengths))
            return torch.ones(2**22).sum().item()

        taken = timed(compute, 3, CPU)
        assert taken.result == 2**22
        assert 0.01 <= taken.seconds < 0.05 <= max(taken.runs)
        assert 2**23 < taken.added_memory < taken.peak_memory

    def test_kinds_of_operations(self):
        names = ["mm", "addmm", "linalgeigh", "copy", "cat", "mul", "relu", "softmax", "sum", "topk", "view", "t"]
        assert Counter(map(kind_of, names)) == {
            "matrix products": 2, "decompositions": 1, "copies": 2, "elementwise": 3, "sums": 1, "sorting": 1,
            "Python": 2,
        }  # fmt: skip

    def test_a_tally_counts_products_by_dtype(self):
        one, other = torch.ones(30, 40), torch.ones(40, 50, dtype=torch.float64)
        tally = tallied(lambda: (one @ one.T, other.T @ other, one.exp()), CPU)
        assert tally.operations == {"float32": 2 * 30 * 40 * 30, "float64": 2 * 50 * 40 * 50}
        assert set(tally.by_kind) >= {"matrix products", "elementwise"}

    def test_all_threads_and_one_beside_a_busy_process(self, tmp_path):
        case = image_mlp(Sources(output_directory=str(tmp_path), device="cpu"), QUICK)
        with threads(2):
            rows = threads_beside_a_busy_process(case, 1, lambda line: None)
        assert [row["stage"] for row in rows] == list(STAGES)
        assert all(row["threads"] == 2 and row["seconds_of_one"] > 0 < row["seconds_of_all"] for row in rows)
        with threads(1):
            assert threads_beside_a_busy_process(case, 1, lambda line: None) == []

    def test_the_busy_process_ends_with_the_block(self, monkeypatch):
        started, popen = [], subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda *args: started.append(popen(*args)) or started[-1])
        with busy_process():
            assert started[0].poll() is None
        assert started[0].poll() is not None
        assert started[0].args[0] == sys.executable


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--models", "resnet"), "--models resnet: no such model 'resnet'; expected some of modular_addition, "),
        (("--models", ""), "no such model ''"),
        (("--parts", "models,speed"), "--parts models,speed: no such part 'speed'; expected some of models, scaling"),
        (("--runs", "0"), "--runs 0: expected 1 or more"),
        (("--threads", "0"), "--threads 0: expected 1 or more"),
        (("--checkpoint", "weights.pt"), "--checkpoint weights.pt: expected MODEL=PATH with a model of modular_"),
        (("--checkpoint", "decoder=a.pt"), "expected MODEL=PATH"),
        (("--checkpoint", "modular_addition=missing.pt", "--models", "modular_addition"), "missing.pt"),
        (("--cifar", "missing", "--models", "cifar10_mlp"), "missing"),
        (("--device", "cuda:9"), "device=cuda:9"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["stages", "--quick", "--parts", "models", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
