"""A run leaves what CONTRACT.md promises, the same every time, and no more than was asked for."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from itertools import pairwise
from math import isfinite

import pytest
import torch
import yaml
from running import (
    MID,
    NODE_LAYERS,
    OUTPUT,
    POST,
    PRE,
    QUICK,
    TEST_EXAMPLES,
    TOY,
    TRAIN_EXAMPLES,
    assert_same_tensors,
    config_of,
    files_below,
    full_run,
    quick_run,
    read_json,
    reused,
    run_here,
    tensors_of,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from experiments.config import RunConfig
from experiments.errors import UserError
from experiments.models import MODELS
from experiments.preflight import check_model
from libcore.graph import InteractionGraph
from libcore.sections import FunctionSection
from models.modular_addition.data import split_pairs
from models.modular_addition.training import one_hot_pairs
from models.modular_addition.transformer import logits_from_pairs

WIDTH = {PRE: 17, MID: 17, POST: 17, OUTPUT: 8}
POSITIONS = {PRE: 3, MID: 1, POST: 1, OUTPUT: 1}
TOLERANCES = {"0.001", "0.01", "0.05"}
STAGES = {"model", "statistics", "basis", "edges", "ablation"}
MEASURES = ("hoyer", "gini", "participation", "mass99")


@pytest.fixture
def full(tmp_path_factory):
    return full_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def quick(tmp_path_factory):
    return quick_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def variant(quick, tmp_path):
    """Carries out the quick run with other overrides, sharing its cache; returns its directory."""

    def carry_out(*overrides: str, name: str = tmp_path.name):
        return run_here(quick.parents[1], name, *QUICK, *overrides)

    return carry_out


class TestFiles:
    def test_all_files_are_there_and_no_others(self, full):
        figures = ("importance_spectrum", "node_ablation", "edge_ablation", "interaction_graph")
        expected = {f"figures/{name}.{suffix}" for name in figures for suffix in ("png", "pdf")}
        expected |= {"figures", "figures/graph.html", "metrics.json", "ablations.json", "timings.json", "features.json"}
        expected |= {"graph.safetensors", "model.safetensors", "config.yaml", "wandb"}
        found = {name for name in files_below(full) if not name.startswith("wandb/")}
        assert found == expected
        assert all((full / name).stat().st_size > 0 for name in found)

    def test_config_yaml_is_the_configuration_that_was_run(self, full):
        written = yaml.safe_load((full / "config.yaml").read_text())
        overrides = (*TOY, "tracking.tags=[toy]", "tracking.group=together", f"output_directory={full.parents[1]}")
        assert RunConfig.model_validate(written) == config_of(*overrides)

    def test_the_graph_has_the_contract_s_names_and_shapes(self, full):
        metrics = read_json(full / "metrics.json")
        kept = {layer: metrics[f"features/kept/{layer}"] for layer in NODE_LAYERS}
        shapes = {}
        for layer in NODE_LAYERS:
            shapes[f"mean/{layer}"] = (WIDTH[layer],)
            shapes[f"gram/{layer}"] = (WIDTH[layer], WIDTH[layer])
            shapes[f"to_basis/{layer}"] = (WIDTH[layer], kept[layer])
            shapes[f"from_basis/{layer}"] = (kept[layer], WIDTH[layer])
        for layer, next_layer in pairwise(NODE_LAYERS):
            shapes[f"edges/{layer}"] = (kept[next_layer], kept[layer])
        tensors = tensors_of(full)
        # Importances go on behind the kept features: the reference lists all directions before truncation.
        importance = {name: tensors.pop(name) for name in [f"importance/{layer}" for layer in NODE_LAYERS]}
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
        for layer in NODE_LAYERS:
            assert importance[f"importance/{layer}"].dim() == 1
            assert kept[layer] <= len(importance[f"importance/{layer}"]) <= WIDTH[layer]
        assert {tensor.dtype for tensor in (*tensors.values(), *importance.values())} == {torch.float64}

    def test_the_graph_s_header_says_where_it_comes_from(self, full):
        with safe_open(full / "graph.safetensors", "pt") as file:
            header = file.metadata()
        assert json.loads(header["node_layers"]) == list(NODE_LAYERS)
        assert header["method"] == "lib"
        assert json.loads(header["config"]) == yaml.safe_load((full / "config.yaml").read_text())
        assert json.loads(header["versions"])["torch"] == importlib.metadata.version("torch")

    def test_the_constant_is_the_last_coordinate_and_the_first_feature(self, full):
        graph = InteractionGraph.load(full / "graph.safetensors")
        for layer in NODE_LAYERS[:-1]:
            basis, mean = graph.bases[layer], graph.statistics[layer].mean
            assert mean[-1] == 1.0
            features_of_mean = mean @ basis.to_basis
            # Every other feature is centred, so that the mean activation is the constant feature alone.
            assert features_of_mean[1:].abs().max() < 1e-9 * features_of_mean[0].abs()
            assert torch.allclose(basis.from_basis @ basis.to_basis, torch.eye(basis.n_features).double(), atol=1e-6)

    def test_metrics_have_exactly_the_contract_s_keys(self, full):
        pairs, metrics = NODE_LAYERS[:-1], read_json(full / "metrics.json")
        expected = {"score/train", "score/test", "graph/modularity", "graph/communities"}
        expected |= {f"features/kept/{layer}" for layer in NODE_LAYERS}
        expected |= {f"features/needed_{tolerance}/{layer}" for tolerance in TOLERANCES for layer in pairs}
        expected |= {f"edges/needed_{tolerance}/{layer}" for tolerance in TOLERANCES for layer in (*pairs, "total")}
        expected |= {f"edges/{measure}/{layer}" for measure in MEASURES for layer in pairs}
        expected |= {f"{what}/{stage}" for what in ("time", "memory") for stage in (*STAGES, "figures")}
        assert metrics.keys() == expected
        assert all(isinstance(value, int | float) and isfinite(value) for value in metrics.values())

    def test_ablations_agree_with_themselves_and_with_the_metrics(self, full):
        metrics, ablations = read_json(full / "metrics.json"), read_json(full / "ablations.json")
        assert ablations.keys() == {"test_score", "node_ablation", "edge_ablation", "edges_needed", "nodes_needed"}
        assert ablations["test_score"] == metrics["score/test"]
        for curves, needed, prefix in (
            ("node_ablation", "nodes_needed", "features"),
            ("edge_ablation", "edges_needed", "edges"),
        ):
            assert ablations[curves].keys() == ablations[needed].keys() == set(NODE_LAYERS[:-1])
            for layer, scores in ablations[curves].items():
                assert ablations[needed][layer].keys() == TOLERANCES
                assert scores[max(scores, key=int)] == ablations["test_score"]
                for tolerance, count in ablations[needed][layer].items():
                    assert metrics[f"{prefix}/needed_{tolerance}/{layer}"] == count
                    assert scores[str(count)] >= ablations["test_score"] - float(tolerance) - 1e-12
        for tolerance in TOLERANCES:
            total = sum(needed[tolerance] for needed in ablations["edges_needed"].values())
            assert metrics[f"edges/needed_{tolerance}/total"] == total

    def test_timings_have_seconds_and_bytes_of_every_stage(self, full):
        metrics, timings = read_json(full / "metrics.json"), read_json(full / "timings.json")
        assert timings.keys() == STAGES | {"figures"}
        for stage, taken in timings.items():
            assert taken.keys() == {"seconds", "peak_memory", "reused"}
            assert taken["seconds"] == metrics[f"time/{stage}"] > 0
            assert taken["peak_memory"] == metrics[f"memory/{stage}"] > 2**20
            assert taken["reused"] is False

    def test_every_feature_has_a_label_and_a_community(self, full):
        metrics, features = read_json(full / "metrics.json"), read_json(full / "features.json")
        assert features.keys() == {"labels", "communities"}
        for layer in NODE_LAYERS:
            labels, communities = features["labels"][layer], features["communities"][layer]
            assert len(labels) == len(communities) == metrics[f"features/kept/{layer}"]
            assert (labels[0] == "constant") is (layer != OUTPUT)
        found = {community for layer in NODE_LAYERS for community in features["communities"][layer]} - {-1}
        assert found == set(range(metrics["graph/communities"]))

    def test_scores_are_those_of_the_trained_weights(self, full):
        """By the forward pass that training uses, which shares no code with the sections."""
        weights, metrics = load_file(full / "model.safetensors"), read_json(full / "metrics.json")
        for name, examples in zip(("train", "test"), split_pairs(7, 0.8, 0), strict=True):
            predictions = logits_from_pairs(weights, *one_hot_pairs(examples, 7)).argmax(-1)
            assert metrics[f"score/{name}"] == (predictions == examples.labels).double().mean().item()
        assert metrics["score/test"] > 0


class TestRepetition:
    def test_a_second_run_finds_every_stage_and_has_the_same_result(self, quick, variant):
        second = variant()
        assert_same_tensors(tensors_of(second), tensors_of(quick))
        assert reused(second) == dict.fromkeys(STAGES, True)
        for name in ("metrics.json", "ablations.json", "features.json"):
            assert (second / name).read_bytes() == (quick / name).read_bytes()

    def test_a_run_elsewhere_computes_the_same_bits(self, quick, tmp_path):
        second = run_here(tmp_path, "second", *QUICK)
        assert not any(reused(second).values())
        assert_same_tensors(tensors_of(second), tensors_of(quick))
        assert (second / "ablations.json").read_bytes() == (quick / "ablations.json").read_bytes()
        assert (second / "features.json").read_bytes() == (quick / "features.json").read_bytes()

    def test_another_seed_is_another_model(self, quick, variant):
        other = variant("seed=1")
        assert not torch.equal(tensors_of(other)[f"gram/{PRE}"], tensors_of(quick)[f"gram/{PRE}"])
        assert read_json(other / "metrics.json").keys() == read_json(quick / "metrics.json").keys()

    @pytest.mark.parametrize("suffix", ["safetensors", "pt"])
    def test_a_checkpoint_of_the_trained_weights_gives_the_trained_model_s_graph(
        self, quick, variant, tmp_path, suffix
    ):
        path = tmp_path / f"checkpoint.{suffix}"
        weights = load_file(quick / "model.safetensors")
        if suffix == "safetensors":
            save_file(weights, path)
        else:
            # As classic TransformerLens saves it: with buffers that are no weights.
            buffers = {"blocks.0.attn.mask": torch.ones(3, 3).bool(), "blocks.0.attn.IGNORE": torch.tensor(-1e5)}
            torch.save(weights | buffers, path)
        loaded = variant(f"model.checkpoint={path}", "seed=5", name=f"from_{suffix}")
        assert_same_tensors(tensors_of(loaded), tensors_of(quick))
        assert_same_tensors(load_file(loaded / "model.safetensors"), weights)
        # Another file of the same name is another model.
        changed = {name: 2 * weight for name, weight in weights.items()}
        torch.save(changed, path) if suffix == "pt" else save_file(changed, path)
        again = variant(f"model.checkpoint={path}", name=f"again_{suffix}")
        assert not torch.equal(tensors_of(again)[f"gram/{PRE}"], tensors_of(quick)[f"gram/{PRE}"])


class TestWhatWasAskedFor:
    @pytest.mark.parametrize(
        ("stages", "absent_files", "metrics", "timed"),
        [
            (["basis"], {"ablations.json"}, {"score", "features/kept"}, {"basis"}),
            (
                ["basis", "edges"],
                {"ablations.json"},
                {"score", "features/kept", "graph", *(f"edges/{measure}" for measure in MEASURES)},
                {"basis", "edges"},
            ),
            (
                ["basis", "ablation"],
                set(),
                {"score", "features/kept", *(f"features/needed_{tolerance}" for tolerance in TOLERANCES)},
                {"basis", "ablation"},
            ),
        ],
    )
    def test_stages_that_were_not_asked_for_leave_nothing(self, quick, variant, stages, absent_files, metrics, timed):
        run = variant(f"analysis.stages=[{','.join(stages)}]")
        written = {"config.yaml", "features.json", "graph.safetensors", "metrics.json", "model.safetensors"}
        written |= {"timings.json", "ablations.json"} - absent_files
        assert files_below(run) == written
        keys = {key for key in read_json(run / "metrics.json") if key.split("/")[0] not in ("time", "memory")}
        sections = {key if key.startswith(("score", "graph")) else key.rsplit("/", 1)[0] for key in keys}
        assert {section.split("/")[0] if section[:5] in ("score", "graph") else section for section in sections} == metrics
        assert read_json(run / "timings.json").keys() == {"model", "statistics"} | timed
        expected = {name: tensor for name, tensor in tensors_of(quick).items() if not name.startswith("edges/")}
        found = {name: tensor for name, tensor in tensors_of(run).items() if not name.startswith("edges/")}
        assert_same_tensors(found, expected)
        assert any(name.startswith("edges/") for name in tensors_of(run)) is ("edges" in stages)
        if "ablation" in stages:
            assert read_json(run / "ablations.json")["edge_ablation"] == {}

    def test_figures_show_what_there_is(self, variant):
        run = variant("analysis.stages=[basis,figures]")
        assert files_below(run / "figures") == {"importance_spectrum.png", "importance_spectrum.pdf"}

    def test_figures_of_nothing_are_refused(self):
        with pytest.raises(UserError, match=r"stages=.*basis"):
            config_of("analysis.stages=[figures]")

    @pytest.mark.parametrize("layers", [(PRE, POST), (MID, OUTPUT), (PRE, MID), (PRE, OUTPUT), (PRE, MID, OUTPUT)])
    def test_fewer_node_layers(self, quick, variant, layers):
        run = variant("method=pca", f"analysis.node_layers=[{','.join(layers)}]")
        graph, full = InteractionGraph.load(run / "graph.safetensors"), InteractionGraph.load(
            quick / "graph.safetensors"
        )
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


@pytest.fixture(scope="module")
def model():
    config = config_of(*TOY, "model.training.max_steps=1").model
    weights, _ = MODELS["modular_addition"].train(config, 0, torch.device("cpu"))
    return MODELS["modular_addition"].analysed(config, weights, torch.device("cpu"))


class TestModelChecks:
    """What only the loaded model tells; the command line asks before it starts."""

    def test_more_examples_than_there_are(self, model):
        check_model(config_of(*TOY, f"analysis.n_examples={TRAIN_EXAMPLES}"), model)
        with pytest.raises(UserError, match=r"analysis\.n_examples=40: the training split has 39"):
            check_model(config_of(*TOY, "analysis.n_examples=40"), model)
        assert len(model.test.inputs) == TEST_EXAMPLES

    def test_a_closed_form_that_there_is_not(self, model):
        def with_unknown_section(dtype: torch.dtype):
            chain = model.chain(dtype)
            return replace(chain, sections=(FunctionSection(chain.sections[0]), *chain.sections[1:]))

        unknown = replace(model, chain=with_unknown_section)
        config = config_of(*TOY, "analysis.estimator=closed_form")
        with pytest.raises(UserError, match=r"analysis\.estimator=closed_form: FunctionSection .* auto or exact"):
            check_model(config, unknown)
        # Without the section that has none, there is nothing to complain of.
        layers = f"analysis.node_layers=[{MID},{POST},{OUTPUT}]"
        check_model(config_of(*TOY, "analysis.estimator=closed_form", layers), unknown)
        check_model(config_of(*TOY, "analysis.estimator=auto"), unknown)

