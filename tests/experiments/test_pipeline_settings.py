"""What is computed is what was asked for: stages, node layers, examples, integration, precision."""

from __future__ import annotations

import re

import pytest
import torch
from running import (
    MID,
    NODE_LAYERS,
    OUTPUT,
    POST,
    PRE,
    QUICK,
    TEST_EXAMPLES,
    TOLERANCES,
    TOY,
    TOY_MODELS,
    TRAIN_EXAMPLES,
    assert_same_tensors,
    config_of,
    files_below,
    read_json,
    reused,
    run_here,
    tensors_of,
)
from safetensors.torch import load_file

from experiments.config.model_checks import check_model
from libcore.graph import InteractionGraph, interaction_edges
from models.errors import UserError
from models.modular_addition.data import split_pairs
from models.room import room_of
from models.weights import ModelFile

POSITIONS = {PRE: 3, MID: 1, POST: 1, OUTPUT: 1}
HALVES = ("first", "second")
MEASURES = ("hoyer", "gini", "participation", "mass99", "completeness")


OF_FEATURES = {
    f"features/{what}"
    for what in ("kept", "condition", "identified", "identified_in_groups", "kept_again", "found_in_halves")
}


def measured(key: str) -> str:
    """What a metric measures, without the node layer or the stage."""
    section = key.partition("/")[0]
    return key.rpartition("/")[0] if section in ("features", "edges") else section


class TestWhatWasAskedFor:
    @pytest.mark.parametrize(
        ("stages", "absent_files", "metrics", "timed"),
        [
            (["basis"], {"ablations.json", "features.json"}, {"features/kept", "features/condition"}, {"basis"}),
            (["basis", "labels"], {"ablations.json"}, {"features/kept", "features/condition"}, {"basis", "names"}),
            (
                ["basis", "edges"],
                {"ablations.json"},
                {*OF_FEATURES, "graph", *(f"edges/{measure}" for measure in MEASURES)},
                {"basis", "edges", "names"},
            ),
            (
                ["basis", "ablation"],
                {"features.json"},
                {
                    *OF_FEATURES,
                    "features/ablation_area",
                    *(f"features/needed_{tolerance}" for tolerance in TOLERANCES),
                },
                {"basis", "ablation"},
            ),
        ],
    )
    def test_stages_that_were_not_asked_for_leave_nothing(self, quick, variant, stages, absent_files, metrics, timed):
        run = variant(f"analysis.stages=[{','.join(stages)}]")
        written = {"config.yaml", "graph.safetensors", "metrics.json", "model.safetensors", "timings.json"}
        written |= {"features.json", "ablations.json"} - absent_files
        assert files_below(run) == written
        assert {measured(key) for key in read_json(run / "metrics.json")} - {"time", "memory"} == metrics
        assert read_json(run / "timings.json").keys() == {"model", "statistics", "identification"} | timed
        left_out = (
            ("edges/",) if {"edges", "ablation"} & set(stages) else ("edges/", "moved/", "moved_in_group/", "group/")
        )
        expected = {name: tensor for name, tensor in tensors_of(quick).items() if not name.startswith(left_out)}
        found = {name: tensor for name, tensor in tensors_of(run).items() if not name.startswith(left_out)}
        assert_same_tensors(found, expected)
        assert any(name.startswith("edges/") for name in tensors_of(run)) is ("edges" in stages)
        if "ablation" in stages:
            assert read_json(run / "ablations.json")["edge_ablation"] == {}

    def test_figures_show_what_there_is(self, variant):
        run = variant("analysis.stages=[basis,figures]")
        spectrum = {"importance_spectrum.png", "importance_spectrum.pdf"}
        assert files_below(run / "figures") == spectrum | {"features.html"}

    def test_figures_of_nothing_are_refused(self):
        with pytest.raises(UserError, match=r"stages=.*basis"):
            config_of("analysis.stages=[figures]")

    @pytest.mark.parametrize("layers", [(PRE, POST), (MID, OUTPUT), (PRE, OUTPUT), (PRE, MID, OUTPUT)])
    def test_fewer_node_layers(self, quick, variant, layers):
        run = variant("method=pca", f"analysis.node_layers=[{','.join(layers)}]")
        graph, full = (InteractionGraph.load(path / "graph.safetensors") for path in (run, quick))
        assert graph.node_layers == layers
        assert tuple(graph.edges) == layers[:-1]
        for layer in layers:
            assert torch.allclose(graph.statistics[layer].gram, full.statistics[layer].gram, rtol=1e-12, atol=1e-14)
        metrics, of_all = read_json(run / "metrics.json"), read_json(quick / "metrics.json")
        assert {key.rpartition("/")[2] for key in metrics if key.startswith("features/kept")} == set(layers)
        # What follows the last node layer still runs: the model's own scores are unchanged.
        for key in ("score/train", "score/test"):
            assert metrics[key] == of_all[key]
        assert read_json(run / "ablations.json")["node_ablation"].keys() == set(layers[:-1])

    def test_fit_on_the_first_examples_of_the_training_split(self, quick, variant):
        run = variant("analysis.n_examples=20")
        graph, full = (InteractionGraph.load(path / "graph.safetensors") for path in (run, quick))
        weights = load_file(run / "model.safetensors")
        for layer in NODE_LAYERS:
            assert graph.statistics[layer].count == 20 * POSITIONS[layer]
            assert full.statistics[layer].count == TRAIN_EXAMPLES * POSITIONS[layer]
        tokens = split_pairs(7, 0.8, 0)[0].tokens[:20]
        embedded = weights["embed.W_E"].double()[tokens] + weights["pos_embed.W_pos"].double()
        assert torch.allclose(graph.statistics[PRE].mean[:-1], embedded.mean((0, 1)), atol=1e-12)
        assert read_json(run / "metrics.json")["score/train"] == read_json(quick / "metrics.json")["score/train"]

    def test_fit_on_a_half_of_the_examples(self, quick, variant):
        first, second = (variant("analysis.n_examples=21", f"analysis.half={half}", name=half) for half in HALVES)
        tokens = split_pairs(7, 0.8, 0)[0].tokens[:21]
        weights = load_file(first / "model.safetensors")
        embedded = weights["embed.W_E"].double()[tokens] + weights["pos_embed.W_pos"].double()
        for run, chosen in ((first, embedded[:10]), (second, embedded[10:])):
            moments = InteractionGraph.load(run / "graph.safetensors").statistics[PRE]
            assert moments.count == len(chosen) * POSITIONS[PRE]
            assert torch.allclose(moments.mean[:-1], chosen.mean((0, 1)), atol=1e-12)
            assert reused(run)["model"]
            assert read_json(run / "metrics.json")["score/train"] == read_json(quick / "metrics.json")["score/train"]
        assert not any(reused(second)[stage] for stage in ("statistics", "basis", "edges", "ablation"))

    def test_edges_from_the_first_examples(self, quick, variant):
        """The bases are those of all; edges, and nothing else, are those of a run on the first alone."""
        run = variant("analysis.n_edge_examples=5", "analysis.stages=[basis,edges]")
        graph, full = (InteractionGraph.load(path / "graph.safetensors") for path in (run, quick))
        assert reused(run)["basis"]
        assert not reused(run)["edges"]
        room = room_of(config_of(*TOY).model_settings)
        model = room.analysed(ModelFile.read(run / "model.safetensors"), torch.device("cpu"))
        chain = model.chain(torch.float64)
        expected = interaction_edges(chain, model.fit_inputs(None, None)[:5], full.bases)
        for layer, edges in expected.items():
            assert torch.allclose(graph.edges[layer], edges, rtol=1e-9)
            assert not torch.allclose(graph.edges[layer], full.edges[layer], rtol=1e-3)

    def test_ablate_some_node_layers(self, quick, variant):
        run = variant(f"analysis.ablate.nodes=[{MID}]", "analysis.ablate.edges=[*.hook_resid_pre]")
        some, full = (read_json(path / "ablations.json") for path in (run, quick))
        assert some["node_ablation"] == {MID: full["node_ablation"][MID]}
        assert some["edges_needed"] == {PRE: full["edges_needed"][PRE]}
        metrics = read_json(run / "metrics.json")
        for tolerance in TOLERANCES:
            assert metrics[f"features/needed_{tolerance}/total"] == some["nodes_needed"][MID][tolerance]

    def test_node_layers_by_pattern(self, variant):
        run = variant("method=pca", "analysis.node_layers=[blocks.*.hook_resid_p*,output]", "analysis.stages=[basis]")
        assert InteractionGraph.load(run / "graph.safetensors").node_layers == (PRE, POST, OUTPUT)

    def test_a_basis_that_dropped_what_the_model_uses_is_told(self, variant, caplog):
        variant("analysis.truncation=0.5", "analysis.tolerances=[0.001]")
        told = [record.message for record in caplog.records if record.name == "experiments.pipeline.ablations"]
        assert any("features the score is" in message and "says nothing there" in message for message in told)

    def test_ablations_say_beforehand_what_they_cost_at_most(self, variant, caplog):
        caplog.set_level("INFO", logger="experiments")
        scores = read_json(variant("analysis.n_test_examples=5") / "ablations.json")
        first, estimate, last = [
            record.message for record in caplog.records if record.name == "experiments.pipeline.ablation_progress"
        ]
        bound = int(re.search(r"at most ([\d,]+) evaluations", first)[1].replace(",", ""))
        done = sum(len(curve) for kind in ("node_ablation", "edge_ablation") for curve in scores[kind].values())
        assert 0 < done <= bound
        assert last.startswith(f"ablation: {done:,} of at most {bound:,} evaluations in ")
        assert re.search(r"at most [\d.]+ s in all", estimate)

    def test_ablate_on_the_first_examples_of_the_test_split(self, quick, variant):
        run = variant("analysis.n_test_examples=3")
        scores = read_json(run / "ablations.json")
        assert 3 * scores["test_score"] == pytest.approx(round(3 * scores["test_score"]))
        for curve in scores["node_ablation"].values():
            assert all(3 * score == pytest.approx(round(3 * score)) for score in curve.values())
        # The model's own score is that on the whole split.
        assert read_json(run / "metrics.json")["score/test"] == read_json(quick / "metrics.json")["score/test"]
        assert 10 * read_json(quick / "metrics.json")["score/test"] % 1 == pytest.approx(0, abs=1e-9)

    def test_all_examples_by_number_is_all_examples(self, quick, variant):
        assert_same_tensors(tensors_of(variant(f"analysis.n_examples={TRAIN_EXAMPLES}")), tensors_of(quick))

    @pytest.mark.parametrize(("rule", "changed"), [("trapezoidal", {PRE, MID}), ("gauss_legendre", {PRE})])
    def test_integration_rules(self, variant, rule, changed):
        """The last section is affine: its gradient is the same everywhere. A ReLU's is the same on the way from zero to
        an activation, zero left out, which only the trapezoidal rule asks for."""
        at_the_point = tensors_of(variant("method=pca", name=f"gradient_{rule}"))
        along_the_path = tensors_of(variant("method=pca", f"analysis.integration={rule}", "analysis.n_points=4"))
        difference = {
            layer: ((along_the_path[f"edges/{layer}"] - edges).norm() / edges.norm()).item()
            for layer in NODE_LAYERS[:-1]
            for edges in [at_the_point[f"edges/{layer}"]]
        }
        assert {layer for layer, size in difference.items() if size > 1e-6} == changed

    def test_the_jacobian_along_the_path_is_another_basis(self, quick, variant):
        run = variant("method.jacobian=path", "analysis.integration=gauss_legendre", "analysis.n_points=3")
        found, expected = tensors_of(run), tensors_of(quick)
        assert torch.equal(found[f"gram/{PRE}"], expected[f"gram/{PRE}"])
        assert not torch.allclose(found[f"importance/{PRE}"], expected[f"importance/{PRE}"])

    def test_exact_and_automatic_estimators_agree(self, quick, variant):
        run = variant("analysis.estimator=exact")
        assert reused(run)["edges"] is False
        for layer in (MID, POST):
            found, expected = (tensors_of(path)[f"edges/{layer}"] for path in (run, quick))
            assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9 * expected.max().item())

    def test_single_precision(self, quick, variant):
        run = variant("dtype=float32")
        found, expected = tensors_of(run), tensors_of(quick)
        assert {tensor.dtype for tensor in found.values()} <= {torch.float32, torch.float64}
        for layer in NODE_LAYERS[1:]:
            error = (found[f"gram/{layer}"].double() - expected[f"gram/{layer}"]).abs().max()
            assert 1e-12 < error / expected[f"gram/{layer}"].abs().max() < 1e-5
        strength = expected[f"edges/{POST}"].sum()
        assert (found[f"edges/{POST}"].sum().double() - strength).abs() < 1e-3 * strength

    def test_a_tight_memory_budget_changes_nothing(self, quick, tmp_path):
        run = run_here(tmp_path, "tight", *QUICK, "analysis.memory_budget=1MB")
        for name, tensor in tensors_of(run).items():
            if name.startswith(("moved", "group")):  # of features that are round-off, round-off
                continue
            expected = tensors_of(quick)[name]
            assert torch.allclose(tensor, expected, rtol=1e-6, atol=1e-9 * expected.abs().max().item()), name

    @pytest.mark.parametrize("method", ["lib", "pca"])
    def test_a_single_example(self, variant, method):
        """Nothing varies: only the constant feature is left after attention."""
        run = variant(f"method={method}", "analysis.n_examples=1", name=f"single_{method}")
        metrics = read_json(run / "metrics.json")
        assert (metrics[f"features/kept/{MID}"], metrics[f"features/kept/{OUTPUT}"]) == (1, 8)
        # Nothing is not a number: the sparsity of no edge has none.
        assert metrics.get(f"edges/hoyer/{MID}") is None


class TestModelChecks:
    """What only the model tells; the command line asks before it starts."""

    def test_more_examples_than_there_are(self):
        check_model(config_of(*TOY, f"analysis.n_examples={TRAIN_EXAMPLES}"))
        with pytest.raises(UserError, match=r"analysis\.n_examples=40: the training split has 39"):
            check_model(config_of(*TOY, "analysis.n_examples=40"))
        check_model(config_of(*TOY, f"analysis.n_test_examples={TEST_EXAMPLES}"))
        with pytest.raises(UserError, match=r"analysis\.n_test_examples=11: the test split has 10"):
            check_model(config_of(*TOY, "analysis.n_test_examples=11"))

    def test_a_single_example_has_no_halves(self):
        check_model(config_of(*TOY, "analysis.n_examples=2", "analysis.half=first"))
        with pytest.raises(UserError, match=r"analysis\.half=first: a single example has no halves"):
            check_model(config_of(*TOY, "analysis.n_examples=1", "analysis.half=first"))

    def test_the_known_ground_truth_is_tested_on_all_combinations(self):
        config_of("model=block_diagonal_mlp", "analysis.half=second", "analysis.n_examples=100")
        with pytest.raises(UserError, match=r"analysis\.n_test_examples=10: .* the first of them are not independent"):
            config_of("model=block_diagonal_mlp", "analysis.n_test_examples=10")

    def test_a_closed_form_that_there_is_not(self):
        settings = (
            "model=cifar10_cnn",
            *TOY_MODELS["cifar10_cnn"],
            "model.pooling=max",
            "analysis.estimator=closed_form",
        )
        with pytest.raises(UserError, match=r"analysis\.estimator=closed_form: ComposedSection .* auto or exact"):
            check_model(config_of(*settings))
        # Without the sections that have none, there is nothing to complain of.
        check_model(config_of(*settings, "analysis.node_layers=[blocks.3,readout,output]"))
        check_model(config_of(*settings, "analysis.estimator=auto"))


class TestConstantActivations:
    """One example: nothing varies, and the constant is the only feature of LIB."""

    def test_a_run_with_every_figure_and_page(self, tmp_path):
        model = ("model=block_diagonal_mlp", *TOY_MODELS["block_diagonal_mlp"], "tracking.mode=disabled")
        run = run_here(tmp_path, "one", *model, "analysis.n_examples=1")
        metrics = read_json(run / "metrics.json")
        assert metrics["features/kept/layers.0"] == metrics["features/kept/layers.2"] == 1
        assert metrics["edges/needed_0.001/total"] == 0
        names = ("node_ablation", "edge_ablation", "importance_spectrum", "interaction_graph", "communities")
        assert {f"figures/{name}.png" for name in names} | {"figures/graph.html"} <= files_below(run)
        assert "nan" not in (run / "figures" / "graph.html").read_text().partition("</header>")[0]
