"""Pretrained models by name: a local Hugging Face folder, or one on the hub, downloaded once."""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from models.vision.image_set import one_line

DOWNLOADED = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Configuration, tokenizer and weights, once and not in every format that a repository has."""
DOWNLOADED_WITHOUT_SAFETENSORS = (*DOWNLOADED, "*.bin")


class ModelNotFound(ValueError):
    """There is no model of that name, or it cannot be downloaded."""


def model_folder(name: str) -> Path:
    """The folder of a pretrained model: configuration, weights, tokenizer.

    Args:
        name: a local folder, or a name on the Hugging Face hub; downloaded if it was not before. Short names that
            TransformerLens knows are accepted too.

    Raises:
        ModelNotFound: neither, or there is no network; soon, without trying again and again.
    """
    if is_model(folder := Path(name).expanduser()):
        return folder
    if folder.exists() or name.count("/") > 1 or name.startswith(("/", ".", "~")):
        found = "a file" if folder.is_file() else "none" if folder.exists() else "no such folder"
        raise ModelNotFound(f"{name}: expected a folder with a config.json, found {found}")
    return from_hub(name)


def is_model(folder: Path) -> bool:
    """Whether a folder has a model's configuration."""
    return (folder / "config.json").is_file()


def from_hub(name: str) -> Path:
    """The folder that the hub's client keeps a model in, which it downloads first where it has to."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    official = official_name(name)
    try:
        if is_model(downloaded := Path(snapshot_download(official, local_files_only=True))):
            return downloaded
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelNotFound(f"{name}: neither a folder nor a name on the hub ({one_line(error)})") from error
    try:
        check_reachable(constants.ENDPOINT)
        files = HfApi().list_repo_files(official)
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        patterns = DOWNLOADED if has_safetensors else DOWNLOADED_WITHOUT_SAFETENSORS
        return Path(snapshot_download(official, allow_patterns=list(patterns)))
    # The client has dozens of errors of its own beside those of the network below it.
    except Exception as error:
        raise ModelNotFound(
            f"{name}: not there as a folder, and not to be had from {constants.ENDPOINT} ({one_line(error)})"
        ) from error


def check_reachable(endpoint: str) -> None:
    """Raises OSError where there is no network: the hub's client would try for most of a minute."""
    from models.vision.cifar10_torchvision import check_reachable as check

    check(endpoint)


def official_name(name: str) -> str:
    """The hub's name of a model that TransformerLens has a short name for; others as they are.

    Read from TransformerLens's table, as importing the package takes seconds.
    """
    (package,) = (find_spec("transformer_lens") or ModuleSpec("", None)).submodule_search_locations or ("",)
    table = Path(package) / "tools" / "model_registry" / "data" / "model_aliases.json"
    if not table.is_file():
        return name
    aliases: dict[str, list[str]] = json.loads(table.read_text(encoding="utf-8"))["aliases"]
    return next((official for official, short in aliases.items() if name in short), name)
