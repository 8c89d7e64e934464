"""The small and the pretrained transformer from the command line: whole runs, what is kept, what is refused."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from running import (
    STORIES,
    TOY_MODELS,
    assert_same_tensors,
    assert_says,
    config_of,
    read_json,
    reused,
    run_here,
    tensors_of,
)
from safetensors import safe_open
from safetensors.torch import save_file

from experiments.config.schema import RunConfig
from experiments.figures.of_run import page_heading
from experiments.pipeline.cache import StageCache
from experiments.pipeline.model_stage import model_stage
from models.errors import UserError
from models.pretrained_transformer import hub
from models.pretrained_transformer import room as pretrained_transformer
from models.pretrained_transformer.room import converted
from models.room import Trained, room_of
from models.small_transformer import room as small_transformer

CPU = torch.device("cpu")
QUICK = ("analysis.stages=[score,basis,edges,ablation]", "tracking.mode=disabled")
SMALL = ("model=small_transformer", *TOY_MODELS["small_transformer"], *QUICK)
PRETRAINED = ("model=pretrained_transformer", *TOY_MODELS["pretrained_transformer"], *QUICK)
LAYERS = tuple(f"blocks.0.hook_resid_{place}" for place in ("pre", "mid", "post"))
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason="the pretrained model is not there")


@cache
def small_run(base: Path) -> Path:
    """One run of the small transformer; once for all tests below `base`, not to be changed."""
    return run_here(base / "language", "small", *SMALL)


@cache
def pretrained_run(base: Path) -> Path:
    """The same of the pretrained one."""
    return run_here(base / "language", "pretrained", *PRETRAINED)


def trained(config: RunConfig, state: Path) -> Trained:
    """The model of a configuration, trained without a progress bar."""
    return room_of(config.model_settings).train(CPU, state, lambda *_: None)


@pytest.fixture
def small(tmp_path_factory) -> Path:
    return small_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def pretrained(tmp_path_factory) -> Path:
    return pretrained_run(tmp_path_factory.getbasetemp())


class TestSmallTransformer:
    def test_a_run_of_it(self, small):
        metrics, tensors = read_json(small / "metrics.json"), tensors_of(small)
        labels = read_json(small / "features.json")["labels"]
        assert tuple(labels) == LAYERS
        for layer, next_layer in pairwise(LAYERS):
            assert tensors[f"edges/{layer}"].shape == tuple(
                metrics[f"features/kept/{name}"] for name in (next_layer, layer)
            )
            assert metrics[f"features/needed_0.01/{layer}"] <= metrics[f"features/kept/{layer}"]
        # Of about a hundred characters, hardly trained: little better than guessing, in nats.
        assert 2 < metrics["score/test"] < 5
        assert labels[LAYERS[0]][0] == "constant"
        assert all(label.count('", "') == 2 for label in labels[LAYERS[0]][1:])

    def test_its_file_may_be_given_instead_of_training(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr(small_transformer, "train", lambda *_: pytest.fail("it was trained"))
        again = run_here(tmp_path, "loaded", *SMALL, f"model.checkpoint={small / 'model.safetensors'}")
        assert_same_tensors(tensors_of(again), tensors_of(small))

    def test_a_file_of_other_sizes(self, refused, small):
        line = refused(*SMALL, f"model.checkpoint={small / 'model.safetensors'}", "model.d_mlp=7")
        assert_says(line, "model.checkpoint=", "d_mlp is another; expected 7, found 5")

    def test_a_file_of_another_text(self, refused, small, tmp_path):
        (tmp_path / "text.txt").write_text("other characters " * 20)
        line = refused(*SMALL, f"model.checkpoint={small / 'model.safetensors'}", "data.path=text.txt")
        assert_says(line, "model.checkpoint=", "its vocabulary is another", "data.path")

    def test_a_file_that_is_no_model(self, refused, tmp_path):
        save_file({"weight": torch.zeros(2)}, tmp_path / "some.safetensors")
        assert_says(
            refused(*SMALL, "model.checkpoint=some.safetensors"), "model.checkpoint=some.safetensors", "missing"
        )

    def test_an_interrupted_training_goes_on_and_ends_the_same(self, tmp_path, monkeypatch):
        config = config_of(*SMALL, "model.training.evaluate_every=1")
        expected = trained(config, tmp_path / "whole.safetensors").file.tensors
        original, steps, stops = small_transformer.train, [], [2]

        class Interrupted(Exception):
            pass

        def watched(*arguments):
            def watch(step, evaluation):
                steps.append(step)
                if stops and step == stops[0]:
                    stops.clear()
                    raise Interrupted

            return original(*arguments[:-1], watch)

        monkeypatch.setattr(small_transformer, "train", watched)
        stages = StageCache(tmp_path / "cache", CPU)
        with pytest.raises(Interrupted):
            model_stage(stages, room_of(config.model_settings))
        stage = model_stage(stages, room_of(config.model_settings))
        assert steps == [1, 2, 2, 3]
        assert_same_tensors(stage.result.tensors, expected)
        assert [path.suffix for path in (tmp_path / "cache" / "model").glob("*.safetensors")] == []

    def test_training_that_diverges(self, tmp_path):
        config = config_of(*SMALL, "model.training.learning_rate=1e30", f"output_directory={tmp_path}")
        with pytest.raises(Exception, match=r"model\.training\.learning_rate=1e\+30: training diverged"):
            model_stage(StageCache(tmp_path, CPU), room_of(config.model_settings))

    def test_the_record_says_whether_the_target_was_reached(self, tmp_path):
        records = [
            trained(config_of(*SMALL, f"model.training.target_cross_entropy={nats}"), tmp_path / f"{nats}").record
            for nats in (0.1, 9.0)
        ]
        assert [record["reached_target"] for record in records] == [False, True]
        assert records[0]["history"] == records[1]["history"]
        assert "nats per token" in records[0]["summary"]


class TestTexts:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, "data.path=text.txt: no such file"),
            (b"", "data.path=text.txt: empty"),
            (b"caf\xe9", "data.path=text.txt: not UTF-8"),
            (b"short", "data.path=text.txt: too short: 5 tokens make 0 sequences of 8"),
        ],
    )
    def test_one_that_cannot_be_used(self, refused, tmp_path, content, expected):
        if content is not None:
            (tmp_path / "text.txt").write_bytes(content)
        assert_says(refused(*SMALL, "data.path=text.txt"), expected)

    def test_a_vocabulary_that_is_too_small(self, refused):
        line = refused(*SMALL, "model.vocabulary=bpe", "model.vocabulary_size=50")
        assert_says(line, "model.vocabulary_size=50: the text has", "different characters")

    def test_a_text_that_has_changed_is_read_again(self, tmp_path):
        path = tmp_path / "text.txt"
        config = config_of(*SMALL, f"data.path={path}")
        found = []
        for text in ("some text to read. " * 9, "other text, and more of it. " * 9):
            path.write_text(text)
            room = room_of(config.model_settings)
            found.append((room.split_sizes(), room.depends_on["text"]))
        assert found[0] != found[1]
        assert sum(found[0][0]) == 19 * 9 // 8

    def test_node_layers_that_there_are_not(self, refused):
        line = refused(*SMALL, "analysis.node_layers=[blocks.0.hook_resid_pree,output]")
        assert_says(line, "analysis.node_layers=", "blocks.0.hook_resid_pree", "did you mean blocks.0.hook_resid_pre?")

    @pytest.mark.parametrize("path", ["blocks.0.hook_resid_mid", "*"])
    def test_logits_that_are_too_many_for_a_basis(self, path, monkeypatch):
        config = config_of(*SMALL, f"analysis.node_layers=['{path}',output]")
        rooms = [room_of(config.model_settings) for _ in range(2)]
        small = rooms[0].architecture
        for room, n_logits in zip(rooms, (16384, 50257), strict=True):
            monkeypatch.setattr(type(room), "architecture", replace(small, d_vocab_out=n_logits))
            if n_logits == 16384:
                assert room.node_layers[-1] == "output"
                continue
            with pytest.raises(
                UserError, match=r"=output: .* 50257 logits .* 18\.8 GB; expected blocks\.0\.hook_resid_post"
            ):
                assert room.node_layers

    def test_a_size_of_a_vocabulary_that_has_none(self, refused):
        assert_says(refused(*SMALL, "model.vocabulary_size=100"), "vocabulary_size=100", "expected null")

    def test_a_text_for_a_model_that_reads_none(self, refused, tmp_path):
        (tmp_path / "text.txt").write_text("text")
        line = refused(*TOY_MODELS["modular_addition"], "data.path=text.txt")
        assert_says(line, "data.path=text.txt: model=modular_addition reads no text; expected null")

    def test_other_versions_of_the_libraries_are_other_models(self, monkeypatch, tmp_path):
        if not STORIES.is_dir():
            pytest.skip("the pretrained model is not there")
        configs = {"small_transformer": config_of(*SMALL), "pretrained_transformer": config_of(*PRETRAINED)}
        kept = {"output_directory": str(tmp_path)}
        configs = {kind: config.model_copy(update=kept) for kind, config in configs.items()}
        before = {kind: room_of(config.model_settings).depends_on for kind, config in configs.items()}
        version = importlib.metadata.version
        for library in ("transformers", "transformer-lens"):
            other = partial(lambda library, name: "0" if name == library else version(name), library)
            monkeypatch.setattr(importlib.metadata, "version", other)
            for kind, config in configs.items():
                assert room_of(config.model_settings).depends_on != before[kind]

    def test_more_examples_than_there_are(self, refused, tmp_path):
        (tmp_path / "text.txt").write_text("0123456789" * 8)
        line = refused(*SMALL, "data.path=text.txt", "analysis.n_test_examples=null")
        assert_says(line, "analysis.n_examples=20", "the training split has 9")


def kept_file(run: Path) -> Path:
    """What the named model was converted to."""
    (file,) = (run.parents[1] / "cache" / "pretrained").glob("*.safetensors")
    return file


@needs_stories
class TestPretrainedTransformer:
    def test_a_run_of_it(self, pretrained):
        metrics, labels = read_json(pretrained / "metrics.json"), read_json(pretrained / "features.json")["labels"]
        # A model of stories reading a reference: better than guessing one of 512 tokens, log 512 = 6.2 nats.
        assert 1 < metrics["score/test"] < 6.2
        assert list(labels) == ["blocks.3.hook_resid_mid", "blocks.4.hook_resid_pre"]
        for layer in labels:
            assert 40 < metrics[f"features/kept/{layer}"] == len(labels[layer]) <= 65

    def test_a_later_run_loads_it_without_its_library(self, pretrained, monkeypatch):
        converted.cache_clear()
        monkeypatch.setattr(pretrained_transformer, "load_pretrained", lambda *_: pytest.fail("it was loaded again"))
        again = run_here(pretrained.parents[1], "again", *PRETRAINED)
        assert set(reused(again).values()) == {True}
        other = run_here(pretrained.parents[1], "other", *PRETRAINED, "model.split_seed=1", "seed=3")
        converted.cache_clear()
        assert {stage for stage, found in reused(other).items() if found} == {"model"}

    def test_its_file_may_be_given(self, pretrained, tmp_path, monkeypatch):
        monkeypatch.setattr(pretrained_transformer, "load_pretrained", lambda *_: pytest.fail("it was loaded again"))
        again = run_here(tmp_path, "loaded", *PRETRAINED, f"model.checkpoint={kept_file(pretrained)}")
        assert (again / "model.safetensors").is_file()
        assert_same_tensors(tensors_of(again), tensors_of(pretrained))

    def test_a_beginning_before_every_sequence(self, pretrained):
        outputs = f"output_directory={pretrained.parents[1]}"
        config = config_of(*PRETRAINED, outputs, "model.beginning_of_sequence=true")
        room = room_of(config.model_settings)
        model = room.analysed(room.initial(), CPU)
        assert model.train.inputs.shape == (12, 6)
        assert (model.train.inputs[:, 0] == 1).all()
        assert (model.train.inputs[:, 1:] != 1).all()

    def test_a_model_that_names_no_beginning(self, refused, pretrained, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(STORIES, folder)
        for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
            (folder / name).chmod(0o644)
            silent = json.loads((folder / name).read_text()) | {"bos_token_id": None, "bos_token": None}
            (folder / name).write_text(json.dumps(silent))
        line = refused(
            *PRETRAINED,
            f"model.name={folder}",
            f"model.checkpoint={kept_file(pretrained)}",
            "model.beginning_of_sequence=true",
        )
        assert_says(line, "model.beginning_of_sequence=true", "expected false")

    def test_sequences_longer_than_the_context(self, refused):
        assert_says(
            refused(*PRETRAINED, "model.sequence_length=513"), "model.sequence_length=513", "at most 512 tokens"
        )

    def test_a_file_of_another_vocabulary(self, refused, small):
        line = refused(*PRETRAINED, f"model.checkpoint={small / 'model.safetensors'}")
        assert_says(line, "model.checkpoint=", "its vocabulary is another than that of model.name=")

    def test_what_it_was_converted_to_is_kept_and_mended(self, tmp_path, monkeypatch):
        convert, loaded = pretrained_transformer.load_pretrained, []
        monkeypatch.setattr(
            pretrained_transformer,
            "load_pretrained",
            lambda name, **options: loaded.append(name) or convert(name, **options),
        )
        converted.cache_clear()
        config = config_of(*PRETRAINED, f"output_directory={tmp_path}")
        kept = room_of(config.model_settings).initial()
        (file,) = (tmp_path / "cache" / "pretrained").iterdir()
        for damage in (lambda: None, lambda: file.write_bytes(file.read_bytes()[:-4]), lambda: None):
            damage()
            converted.cache_clear()
            again = room_of(config.model_settings).initial()
            assert_same_tensors(again.tensors, kept.tensors)
            assert again.header == kept.header
        converted.cache_clear()
        assert len(loaded) == 2

    @pytest.mark.parametrize("argument", ["data.path=nowhere.txt", "model.sequence_length=513", "model.name=folder"])
    def test_what_can_be_told_before_the_conversion_is(self, refused, tmp_path, monkeypatch, argument):
        monkeypatch.setattr(pretrained_transformer, "load_pretrained", lambda *_, **__: pytest.fail("it was loaded"))
        folder = tmp_path / "folder"
        shutil.copytree(STORIES, folder)
        (folder / "tokenizer.json").unlink()
        assert_says(refused(*PRETRAINED, argument), argument)

    def test_the_seed_makes_no_other_model_of_it(self, pretrained):
        outputs = f"output_directory={pretrained.parents[1]}"
        again = run_here(pretrained.parents[1], "seed", *PRETRAINED, outputs, "seed=5")
        assert set(reused(again).values()) == {True}

    def test_the_graph_says_which_model_and_text_it_is_of(self, pretrained):
        with safe_open(pretrained / "graph.safetensors", "pt") as file:
            model = json.loads(file.metadata()["model"])
        config = config_of(*PRETRAINED, f"output_directory={pretrained.parents[1]}")
        assert model == room_of(config.model_settings).depends_on
        assert {"converted", "text"} <= model.keys()

    def test_a_damaged_checkpoint(self, refused, tmp_path):
        (tmp_path / "model.safetensors").write_text("no weights")
        line = refused(*PRETRAINED, "model.checkpoint=model.safetensors")
        assert_says(line, "model.checkpoint=model.safetensors", "not readable")
        assert_says(refused(*PRETRAINED, "model.checkpoint=none.safetensors"), "model.checkpoint=", "no such file")

    def test_a_folder_that_cannot_be_represented(self, refused, tmp_path):
        folder = tmp_path / "model"
        shutil.copytree(STORIES, folder)
        (folder / "config.json").write_text(json.dumps({"model_type": "nothing", "architectures": ["Nothing"]}))
        assert_says(refused(*PRETRAINED, f"model.name={folder}"), f"model.name={folder}", "cannot be loaded")


class TestNames:
    def test_pages_bear_the_model_s_name_and_its_score_s(self):
        for name in ("roneneldan/TinyStories-1M", "../data/TinyStories-1M"):
            config = config_of("model=pretrained_transformer", f"model.name={name}", "analysis.half=second")
            metrics = {"score/test": 1.25, "graph/modularity": 0.5}
            heading, summary = page_heading(config, metrics, "cross-entropy")
            assert heading == "TinyStories-1M: LIB"
            assert summary == {
                "model": "pretrained_transformer",
                "method": "lib",
                "seed": "0",
                "fitted on": "the second half",
                "test cross-entropy": "1.2500",
                "modularity": "0.5000",
            }
        assert page_heading(config_of("model=cifar10_mlp"), {"score/test": 0.5}, "accuracy") == (
            "cifar10_mlp: LIB",
            {"model": "cifar10_mlp", "method": "lib", "seed": "0", "test accuracy": "0.5000"},
        )

    def test_a_folder_without_a_model(self, refused, tmp_path):
        (tmp_path / "empty").mkdir()
        arguments = ("model=pretrained_transformer", *QUICK)
        assert_says(
            refused(*arguments, "model.name=./empty"), "model.name=./empty", "config.json, or a .gguf file, found none"
        )
        assert_says(refused(*arguments, "model.name=./no"), "model.name=./no", "found no such folder")

    def test_the_hub_without_a_network(self, refused, tmp_path, monkeypatch):
        def no_network(endpoint: str) -> None:
            raise TimeoutError("no answer")

        monkeypatch.setattr(hub, "check_reachable", no_network)
        line = refused("model=pretrained_transformer", "model.name=nobody/nothing", *QUICK)
        assert_says(line, "model.name=nobody/nothing", "not to be had from", "no answer")

    def test_what_is_no_name(self, refused):
        assert_says(refused("model=pretrained_transformer", "model.name='a b'", *QUICK), "model.name=a b", "neither")

    def test_short_names_are_those_of_the_library(self):
        assert hub.official_name("gpt2-small") == "gpt2"
        assert hub.official_name("nobody/nothing") == "nobody/nothing"
