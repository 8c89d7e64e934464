"""What a run says of features that can't be trusted: numerically hard models and inputs, each remarked on."""

from __future__ import annotations

import logging

import pytest
import torch
from running import MID, NODE_LAYERS, POST, PRE, QUICK, config_of, quick_run, read_json, reused, run_here, tensors_of
from safetensors.torch import load_file, save_file

from experiments.pages.embedded_graph import embedded_movements
from experiments.pipeline.identification import attempted
from experiments.pipeline.identification_warnings import warnings_of
from libcore import codec
from libcore.identification import Movement

BASES = (*QUICK, "analysis.stages=[basis]")
BASES_ALONE = (*BASES, "analysis.identify_by=[rounding,halves]")
SURE = {
    "kept": 5,
    "varying": 4,
    "condition": 30.0,
    "activations": 100,
    "dimensions": 8,
    "identified": 5,
    "identified_in_groups": 5,
    "kept_again": 5,
    "importance_identified": 1.0,
    "compared_in_halves": 4,
    "found_in_halves": 4,
}


class TestWarnings:
    def test_nothing_is_said_of_what_is_sure(self):
        assert warnings_of(SURE, "float64") == []

    @pytest.mark.parametrize(
        ("change", "dtype", "expected"),
        [
            ({"kept": 1, "varying": 0, "identified": 1, "kept_again": 1}, "float64", ["no feature but the constant"]),
            ({"kept": 1, "varying": 0, "identified": 1, "kept_again": 6}, "float32", ["where float64 tells 5 apart"]),
            ({"activations": 8}, "float64", ["8 activations for 8 dimensions: at most 7 directions"]),
            ({"condition": 1e5}, "float32", ["the worst feature", "an error of 1.2e-02"]),
            ({"condition": 1e13}, "float64", ["an error of 2.2e-03"]),
            (
                {"identified": 2, "identified_in_groups": 4, "importance_identified": 0.75},
                "float64",
                ["2 of 5 features are identified, 2 more as subspaces", "keeps as many", "75 % of the importance"],
            ),
            (
                {"identified": 2, "identified_in_groups": 2, "kept_again": 3},
                "float64",
                ["8 times as high, which keeps 3"],
            ),
            ({"identified": 2, "identified_in_groups": 2}, "float32", ["if they are fitted in float64"]),
            ({"found_in_halves": 1}, "float64", ["1 of the first 4 features are found on both halves"]),
        ],
    )
    def test_each_kind_of_doubt_is_one_line(self, change, dtype, expected):
        (line,) = warnings_of(SURE | change, dtype)
        assert all(part in line for part in expected)
        assert "\n" not in line

    def test_what_was_not_looked_at_is_not_told(self):
        looked_at = ("kept", "varying", "condition", "activations", "dimensions")
        assert warnings_of({name: SURE[name] for name in looked_at}, "float64") == []


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("identified")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return load_file(quick_run(tmp_path_factory.getbasetemp()) / "model.safetensors")


def run_of(outputs, weights, name, *overrides):
    path = outputs / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    return run_here(outputs, name, *BASES_ALONE, f"model.checkpoint={path}", *overrides)


class TestHardModels:
    def test_float32_that_loses_what_float64_keeps(self, outputs, weights, caplog):
        """Activations vary in a direction by 1e-8 of a constant that they share."""
        small = {name: 1e-8 * tensor if name.endswith("embed.W_E") else tensor for name, tensor in weights.items()}
        small["pos_embed.W_pos"] = weights["pos_embed.W_pos"] + 1.0
        run = run_of(outputs, small, "small", "dtype=float32")
        metrics = read_json(run / "metrics.json")
        assert metrics[f"features/kept_again/{MID}"] > metrics[f"features/kept/{MID}"]
        assert any(line.startswith(MID) and "float64" in line for line in said(caplog))

    def test_a_model_of_zeros(self, outputs, weights, caplog):
        run = run_of(outputs, {name: torch.zeros_like(tensor) for name, tensor in weights.items()}, "zeros")
        assert read_json(run / "metrics.json")[f"features/kept/{MID}"] == 1
        assert any(line.startswith(f"{MID}: no feature but the constant") for line in said(caplog))

    def test_fewer_examples_than_dimensions(self, outputs, weights, caplog):
        run_of(outputs, weights, "few", "analysis.n_examples=5")
        assert any(line.startswith(f"{MID}: 5 activations for 16 dimensions") for line in said(caplog))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=lib"], ["rounding", "halves"]),
        (["method=lib_sparse"], []),
        (["method=lib_sparse", "analysis.identify_by=[halves]"], ["halves"]),
        (["method=pca", "analysis.identify_by=[]"], []),
        (["analysis.stages=[score,basis]"], []),
        (["analysis.stages=[basis,ablation]"], ["rounding", "halves"]),
        (["analysis.stages=[basis]", "analysis.identify_by=[halves]"], ["halves"]),
    ],
)
def test_a_method_that_searches_and_a_basis_alone_are_fitted_again_only_if_asked(overrides, expected):
    assert config_of(*overrides).identify_by == expected


class TestStage:
    def test_a_run_keeps_movements_and_counts(self, tmp_path_factory):
        run = quick_run(tmp_path_factory.getbasetemp())
        metrics, tensors = read_json(run / "metrics.json"), tensors_of(run)
        for layer in NODE_LAYERS:
            moved = codec.movements_from(tensors, [layer])[layer]
            assert moved.identified.sum() == metrics[f"features/identified/{layer}"]
            assert moved.identified_in_group.sum() == metrics[f"features/identified_in_groups/{layer}"]
            assert metrics[f"features/identified/{layer}"] <= metrics[f"features/kept/{layer}"]
        assert tensors[f"moved/{PRE}"][0] == 0.0
        assert metrics[f"features/condition/{POST}"] > 1

    @pytest.mark.parametrize(
        ("by", "present", "absent"),
        [
            ("[]", {"condition"}, {"identified", "found_in_halves"}),
            ("[rounding]", {"condition", "identified", "kept_again"}, {"found_in_halves"}),
            ("[halves]", {"condition", "found_in_halves"}, {"identified"}),
        ],
    )
    def test_what_is_looked_at_can_be_chosen(self, outputs, by, present, absent):
        run = run_here(outputs, f"by{by}", *BASES, f"analysis.identify_by={by}")
        metrics = read_json(run / "metrics.json")
        assert all(f"features/{name}/{MID}" in metrics for name in present)
        assert not any(f"features/{name}/{MID}" in metrics for name in absent)
        assert ("moved/" + MID in tensors_of(run)) is ("rounding" in by)

    def test_what_was_found_is_said_again_by_a_run_that_finds_it_done(self, outputs, caplog):
        few = (*BASES_ALONE, "analysis.n_examples=6")
        run_here(outputs, "once", *few)
        first = said(caplog)
        caplog.clear()
        assert reused(run_here(outputs, "twice", *few))["identification"]
        assert said(caplog) == first != []

    def test_a_method_that_refuses_half_of_the_inputs_leaves_halves_out(self, caplog):
        def refuse() -> None:
            raise ValueError("12 samples for 16 directions")

        assert attempted("halves", refuse) is None
        assert said(caplog) == ["identification by halves is left out: 12 samples for 16 directions"]
        assert attempted("halves", lambda: 3) == 3


def test_pages_name_the_others_that_a_feature_is_identified_with():
    moved = Movement(
        torch.tensor([0.0, 0.5, 1e-9, 0.4, 0.9]),
        torch.tensor([0.0, 1e-6, 1e-9, 1e-6, 0.9]),
        torch.tensor([-1, 0, -1, 0, 1]),
    )
    assert embedded_movements(moved) == {
        "moved": [0.0, 0.5, 1e-9, 0.4, 0.9],
        "unsure": {1: [3], 3: [1], 4: []},
    }
