"""A run leaves what FILES.md promises, and the same every time."""

from __future__ import annotations

import importlib.metadata
import json
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
    TOLERANCES,
    TOY,
    assert_same_tensors,
    config_of,
    files_below,
    full_run,
    read_json,
    reused,
    run_here,
    tensors_of,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from experiments.config.schema import RunConfig
from experiments.config.scores import with_tolerances
from libcore.graph import InteractionGraph
from models.modular_addition import room
from models.modular_addition.data import split_pairs
from models.modular_addition.transformer import logits_from_pairs

WIDTH = {PRE: 17, MID: 17, POST: 17, OUTPUT: 8}
STAGES = {"model", "score", "statistics", "basis", "edges", "ablation", "names"}
WITH_FIGURES = STAGES | {"identification", "signs", "examples", "figures"}
MEASURES = ("hoyer", "gini", "participation", "mass99")


@pytest.fixture
def full(tmp_path_factory):
    return full_run(tmp_path_factory.getbasetemp())


class TestFiles:
    def test_all_files_are_there_and_no_others(self, full):
        figures = ("importance_spectrum", "node_ablation", "edge_ablation", "interaction_graph", "communities")
        expected = {f"figures/{name}.{suffix}" for name in figures for suffix in ("png", "pdf")}
        expected |= {"figures", "figures/graph.html", "figures/features.html"}
        expected |= {"metrics.json", "ablations.json", "timings.json", "features.json"}
        expected |= {"graph.safetensors", "model.safetensors", "config.yaml", "wandb"}
        found = {name for name in files_below(full) if not name.startswith("wandb/")}
        assert found == expected
        assert all((full / name).stat().st_size > 0 for name in found)

    def test_config_yaml_is_the_configuration_that_was_run(self, full):
        written = yaml.safe_load((full / "config.yaml").read_text())
        overrides = (*TOY, "tracking.tags=[toy]", "tracking.group=together", f"output_directory={full.parents[1]}")
        assert RunConfig.model_validate(written) == with_tolerances(config_of(*overrides), "accuracy")
        assert written["analysis"]["tolerances"] == [0.001, 0.01, 0.05]

    def test_the_graph_has_the_contract_s_names_and_shapes(self, full):
        metrics = read_json(full / "metrics.json")
        kept = {layer: metrics[f"features/kept/{layer}"] for layer in NODE_LAYERS}
        shapes = {}
        for layer in NODE_LAYERS:
            shapes[f"mean/{layer}"] = (WIDTH[layer],)
            shapes[f"gram/{layer}"] = (WIDTH[layer], WIDTH[layer])
            shapes[f"to_basis/{layer}"] = (WIDTH[layer], kept[layer])
            shapes[f"from_basis/{layer}"] = (kept[layer], WIDTH[layer])
            shapes |= {f"{kind}/{layer}": (kept[layer],) for kind in ("moved", "moved_in_group", "group")}
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
        config = yaml.safe_load((full / "config.yaml").read_text())
        # But for where things lie on a machine, and how they were tracked.
        assert json.loads(header["config"]) == {
            key: value | {"root": None} if key == "data" else value
            for key, value in config.items()
            if key not in ("output_directory", "tracking")
        }
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

    def test_metrics_are_the_contract_s_and_whether_attributions_add_up(self, full):
        pairs, metrics = NODE_LAYERS[:-1], read_json(full / "metrics.json")
        expected = {"score/train", "score/test", "graph/modularity", "graph/communities"}
        expected |= {f"{kind}/ablation_area/{layer}" for kind in ("features", "edges") for layer in (*pairs, "total")}
        expected |= {f"features/needed_{tolerance}/total" for tolerance in TOLERANCES}
        of_features = ("kept", "condition", "identified", "identified_in_groups", "kept_again", "found_in_halves")
        expected |= {f"features/{what}/{layer}" for what in of_features for layer in NODE_LAYERS}
        expected |= {f"features/needed_{tolerance}/{layer}" for tolerance in TOLERANCES for layer in pairs}
        expected |= {f"edges/needed_{tolerance}/{layer}" for tolerance in TOLERANCES for layer in (*pairs, "total")}
        expected |= {f"edges/{measure}/{layer}" for measure in MEASURES for layer in pairs}
        expected |= {f"{what}/{stage}" for what in ("time", "memory") for stage in WITH_FIGURES}
        expected |= {f"edges/completeness/{layer}" for layer in pairs}
        assert metrics.keys() == expected
        assert all(isinstance(value, int | float) and isfinite(value) for value in metrics.values())

    def test_ablations_agree_with_themselves_and_with_the_metrics(self, full):
        metrics, ablations = read_json(full / "metrics.json"), read_json(full / "ablations.json")
        curves_and_counts = {"node_ablation", "edge_ablation", "edges_needed", "nodes_needed"}
        assert ablations.keys() == {"test_score", "score", *curves_and_counts}
        assert ablations["score"] == {"name": "accuracy", "lower_is_better": False}
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
        assert timings.keys() == WITH_FIGURES
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
            predictions = logits_from_pairs(weights, *examples.pairs()).argmax(-1)
            assert metrics[f"score/{name}"] == (predictions == examples.labels).double().mean().item()
        assert metrics["score/test"] > 0


class TestRepetition:
    def test_a_second_run_finds_every_stage_and_has_the_same_result(self, quick, variant):
        second = variant()
        assert_same_tensors(tensors_of(second), tensors_of(quick))
        assert reused(second) == dict.fromkeys(STAGES | {"identification"}, True)
        for name in ("metrics.json", "ablations.json", "features.json"):
            assert (second / name).read_bytes() == (quick / name).read_bytes()

    def test_a_run_builds_one_chain_for_each_precision(self, variant, monkeypatch):
        built, chain_of = [], room.chain_of
        monkeypatch.setattr(room, "chain_of", lambda *arguments: built.append(arguments[1]) or chain_of(*arguments))
        variant("analysis.ablation_dtype=float64", "dtype=float32")
        assert sorted(built, key=str) == [torch.float32, torch.float64]

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
