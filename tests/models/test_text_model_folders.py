"""Pretrained models are found in a folder, among what was downloaded before, or downloaded in one format alone."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from models.transformer import hub
from models.transformer.hub import ModelNotFound, model_folder


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A hub with one repository of the given files; what it was asked to download."""
    patterns: list[list[str]] = []

    def serve(*files: str) -> list[list[str]]:
        def download(name: str, local_files_only: bool = False, allow_patterns: list[str] | None = None) -> str:
            if local_files_only and not patterns:
                raise LocalEntryNotFoundError("not downloaded yet")
            if not local_files_only:
                patterns.append(allow_patterns or [])
                (tmp_path / "config.json").touch()
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
    patterns = asked("config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5")
    assert [model_folder("gpt2") for _ in range(2)] == [tmp_path, tmp_path]
    (only,) = patterns
    assert "*.safetensors" in only
    assert "*.bin" not in only


def test_weights_of_a_repository_without_safetensors(asked):
    patterns = asked("config.json", "pytorch_model.bin")
    model_folder("roneneldan/TinyStories-1M")
    assert "*.bin" in patterns[0]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "some/path/to/nowhere"])
def test_a_path_is_not_looked_for_on_the_hub(name, asked):
    assert asked("config.json") == []
    with pytest.raises(ModelNotFound, match=r"expected a folder with a config\.json, found no such folder"):
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
