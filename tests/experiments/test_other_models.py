"""Whole runs of the vision models and of the known ground truth, with every stage; training that is interrupted."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from running import TOY_MODELS, config_of, read_json, run_here, tensors_of

from experiments.pipeline.cache import StageCache
from experiments.pipeline.model_stage import model_stage
from models.room import room_of
from models.vision import training

LAYERS = {
    "cifar10_mlp": ("layers.0", "layers.1", "layers.2", "output"),
    "cifar10_cnn": ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "readout", "output"),
    "block_diagonal_mlp": ("layers.0", "layers.1", "layers.2", "output"),
}
VISION = ("cifar10_mlp", "cifar10_cnn")


@cache
def full_run(base: Path, model: str) -> Path:
    """One run with all stages and figures; not to be changed."""
    return run_here(base / "others", model, f"model={model}", *TOY_MODELS[model], "tracking.mode=disabled")


@pytest.fixture
def run_of(tmp_path_factory):
    return lambda model: full_run(tmp_path_factory.getbasetemp(), model)


@pytest.mark.parametrize("model", LAYERS)
def test_everything_after_the_basis_is_there(run_of, model):
    run = run_of(model)
    metrics, tensors, features = read_json(run / "metrics.json"), tensors_of(run), read_json(run / "features.json")
    for layer, next_layer in zip(LAYERS[model], LAYERS[model][1:], strict=False):
        kept, kept_next = (metrics[f"features/kept/{name}"] for name in (layer, next_layer))
        assert tensors[f"edges/{layer}"].shape == (kept_next, kept)
        assert 0 <= metrics[f"features/needed_0.01/{layer}"] <= kept
        assert 0 < metrics[f"edges/needed_0.01/{layer}"] <= kept_next * kept
        assert len(features["labels"][layer]) == kept
    assert 0 < metrics["score/test"] <= 1
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"graph.html", "interaction_graph.png", "node_ablation.png", "edge_ablation.png"} <= figures


@pytest.mark.parametrize("model", VISION)
def test_features_are_labelled_and_pictured_by_their_top_images(run_of, model):
    run = run_of(model)
    labels = read_json(run / "features.json")["labels"]
    assert labels["output"] == [f"digit {number}" for number in range(10)]
    assert labels[LAYERS[model][0]][0] == "constant"
    assert all(label.startswith("digit ") and label.endswith("/8") for label in labels[LAYERS[model][1]][1:])
    for layer in LAYERS[model]:
        assert (run / "figures" / f"features_{layer}.png").stat().st_size > 10_000
    assert "data:image/" in (run / "figures" / "graph.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("model", LAYERS)
def test_reading_images_is_a_stage_of_its_own(run_of, model):
    run = run_of(model)
    timings, metrics = read_json(run / "timings.json"), read_json(run / "metrics.json")
    assert ("data" in timings) == ("time/data" in metrics) == (model in VISION)
    if model in VISION:
        assert list(timings)[:2] == ["model", "data"]
        assert timings["data"]["seconds"] == metrics["time/data"] > 0


def test_the_ground_truth_is_found_by_lib_and_missed_by_pca_at_the_input(run_of, tmp_path_factory):
    base = tmp_path_factory.getbasetemp() / "others"
    pca = run_here(base, "ground_truth_pca", "model=block_diagonal_mlp", "method=pca", "tracking.mode=disabled")
    lib = run_here(base, "ground_truth_lib", "model=block_diagonal_mlp", "tracking.mode=disabled")
    assert read_json(lib / "metrics.json")["graph/communities"] == 4
    for run, found in ((lib, True), (pca, False)):
        features = read_json(run / "features.json")
        pairs = set(zip(features["labels"]["layers.0"], features["communities"]["layers.0"], strict=True))
        # A feature none of whose edges the model needs is in no community.
        named = {(label, community) for label, community in pairs if community >= 0}
        assert (len(named) == 4 and all("(" not in label for label, _ in named)) == found


def test_a_layer_may_be_left_out(run_of, tmp_path):
    model = "cifar10_cnn"
    run = run_here(
        tmp_path,
        "fewer",
        f"model={model}",
        *TOY_MODELS[model],
        "analysis.n_examples=6",
        "analysis.n_test_examples=5",
        "analysis.node_layers=[blocks.2,readout,output]",
        "tracking.mode=disabled",
    )
    assert set(read_json(run / "features.json")["labels"]) == {"blocks.2", "readout", "output"}
    assert (run / "figures" / "features_blocks.2.png").is_file()


def test_max_pooling_is_differentiated(tmp_path):
    run = run_here(
        tmp_path,
        "maximum",
        "model=cifar10_cnn",
        *TOY_MODELS["cifar10_cnn"],
        "model.pooling=max",
        "analysis.n_examples=3",
        "analysis.n_test_examples=5",
        "analysis.stages=[basis,edges]",
        "tracking.mode=disabled",
    )
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(run).values())


@pytest.mark.parametrize("model", VISION)
def test_an_interrupted_training_goes_on_and_ends_the_same(tmp_path, monkeypatch, model):
    overrides = (f"model={model}", *TOY_MODELS[model], "model.training.epochs=3")
    cpu = torch.device("cpu")
    config = config_of(*overrides)
    trained = room_of(config.model_settings).train(cpu, tmp_path / "whole.safetensors", lambda *_: None)
    expected = trained.file.tensors

    class Interrupted(Exception):
        pass

    original, epochs = training.train_epoch, []

    def interrupted_in_the_third(*arguments):
        epochs.append(arguments[4])
        if arguments[4] == 2 and epochs.count(2) == 1:
            raise Interrupted
        return original(*arguments)

    monkeypatch.setattr(training, "train_epoch", interrupted_in_the_third)
    cache = StageCache(tmp_path / "cache", cpu)
    with pytest.raises(Interrupted):
        model_stage(cache, room_of(config.model_settings))
    (state,) = (tmp_path / "cache" / "model").glob("*.training.safetensors")
    stage = model_stage(cache, room_of(config.model_settings))
    assert epochs == [0, 1, 2, 2]
    assert not state.exists()
    assert all(torch.equal(stage.result.tensors[name], expected[name]) for name in expected)
