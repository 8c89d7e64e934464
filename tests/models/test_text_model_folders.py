"""Pretrained models are found in a folder, among what was downloaded before, or downloaded in one format alone."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from models.pretrained_transformer import hub
from models.pretrained_transformer.hub import ModelNotFound, model_folder


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A hub with one repository of the given files; what it was asked to download, all into `tmp_path`."""
    patterns: list[list[str]] = []

    def serve(*files: str) -> list[list[str]]:
        def download(name: str, local_files_only: bool = False, allow_patterns: list[str] | None = None) -> str:
            if local_files_only and not any(tmp_path.iterdir()):
                raise LocalEntryNotFoundError("not downloaded yet")
            if not local_files_only:
                patterns.append(allow_patterns or [])
                for file in files:
                    (tmp_path / file).touch()
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: list(files))
        monkeypatch.setattr(hub, "check_reachable", lambda endpoint: None)
        return patterns

    return serve


def test_a_folder_with_a_configuration_is_taken_as_it_is(tmp_path):
    (tmp_path / "config.json").touch()
    assert model_folder(str(tmp_path)) == tmp_path


def test_one_format_of_the_weights_is_downloaded_once(asked, tmp_path):
    patterns = asked("config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5")
    assert [model_folder("gpt2") for _ in range(2)] == [tmp_path, tmp_path]
    (only,) = patterns
    assert "*.safetensors" in only
    assert "*.bin" not in only


def test_weights_of_a_repository_without_safetensors(asked):
    patterns = asked("config.json", "pytorch_model.bin")
    model_folder("roneneldan/TinyStories-1M")
    assert "*.bin" in patterns[0]


SHARDS = json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}})


@pytest.mark.parametrize(
    ("downloaded", "complete"),
    [
        ({}, False),
        ({"tokenizer.json": ""}, False),
        ({"model.safetensors": ""}, False),
        ({"model.safetensors": "", "tokenizer.model": ""}, True),
        ({"pytorch_model.bin": "", "vocab.json": ""}, True),
        ({"pytorch_model.bin.index.json": SHARDS, "model.safetensors": "", "vocab.json": ""}, True),
        ({"model.safetensors.index.json": SHARDS, "model-1-of-2.safetensors": "", "vocab.json": ""}, False),
        ({"model.safetensors.index.json": "{", "model-1-of-2.safetensors": "", "vocab.json": ""}, False),
        (
            {
                "model.safetensors.index.json": SHARDS,
                "model-1-of-2.safetensors": "",
                "model-2-of-2.safetensors": "",
                "vocab.json": "",
            },
            True,
        ),
    ],
)
def test_an_interrupted_download_is_gone_on_with(asked, tmp_path, downloaded, complete):
    patterns = asked("config.json", "tokenizer.json", "model.safetensors")
    for name, content in ({"config.json": ""} | downloaded).items():
        (tmp_path / name).write_text(content)
    assert model_folder("gpt2") == tmp_path
    assert (patterns == []) == complete


def test_an_interrupted_download_without_a_network_is_told(asked, monkeypatch, tmp_path):
    asked("config.json")
    (tmp_path / "config.json").touch()

    def no_network(endpoint: str) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(hub, "check_reachable", no_network)
    with pytest.raises(ModelNotFound, match=r"^gpt2-small: downloaded before in part only, and not .*\(no answer\)"):
        model_folder("gpt2-small")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "some/path/to/nowhere"])
def test_a_path_is_not_looked_for_on_the_hub(name, asked):
    assert asked("config.json") == []
    with pytest.raises(
        ModelNotFound, match=r"expected a folder with a config\.json, or a \.gguf file, found no such folder"
    ):
        model_folder(name)


def test_a_file_is_no_folder(tmp_path):
    Path(tmp_path / "model").touch()
    with pytest.raises(ModelNotFound, match="found a file"):
        model_folder(str(tmp_path / "model"))


def test_what_the_hub_says_is_one_line(asked, monkeypatch):
    asked("config.json")

    def refuse(self, name):
        raise RuntimeError("no such\n\nrepository")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    with pytest.raises(ModelNotFound) as error:
        model_folder("nobody/nothing")
    assert str(error.value).endswith("(no such repository)")


def test_code_of_a_repository_is_downloaded_where_it_is_trusted_alone(asked, tmp_path):
    files = ("config.json", "tokenizer.json", "model.safetensors", "own.py")
    patterns = asked(*files)
    assert model_folder("some/model") == tmp_path
    assert "*.py" not in patterns[0]
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "own.Own"}}))
    (tmp_path / "own.py").unlink()
    model_folder("some/model", with_code=True)
    assert "*.py" in patterns[1]
    model_folder("some/model", with_code=True)
    assert len(patterns) == 2
