"""Pretrained models by name: a local Hugging Face folder, or one on the hub, downloaded once."""

from __future__ import annotations

import json
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from libcore.messages import one_line
from models.reachable import check_reachable
from models.transformer.configuration import ConfigurationError, read_configuration

DOWNLOADED = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Configuration, tokenizer and weights, once and not in every format that a repository has."""
DOWNLOADED_WITHOUT_SAFETENSORS = (*DOWNLOADED, "*.bin")
WEIGHTS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
"""Name and suffix of a model's weights, by format."""
SNAPSHOTS = "snapshots"
"""What the hub's client calls the folder that holds one folder for each commit."""
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*")
"""Files that any tokenizer has one of."""


class ModelNotFound(ValueError):
    """There is no model of that name, or it cannot be downloaded."""


def model_folder(name: str, with_code: bool = False) -> Path:
    """The folder of a pretrained model: configuration, weights, tokenizer.

    Args:
        name: a local folder, or a name on the Hugging Face hub; downloaded if it was not before. Short names that
            TransformerLens knows are accepted too.
        with_code: whether Python files that a model on the hub brings along are downloaded.

    Raises:
        ModelNotFound: neither, or there is no network; soon, without trying again and again.
    """
    if is_model(folder := Path(name).expanduser()):
        return folder
    if folder.exists() or name.count("/") > 1 or name.startswith(("/", ".", "~")):
        found = "a file" if folder.is_file() else "none" if folder.exists() else "no such folder"
        raise ModelNotFound(f"{name}: expected a folder with a config.json, or a .gguf file, found {found}")
    return from_hub(name, with_code)


def is_model(folder: Path) -> bool:
    """Whether a folder has a model's configuration."""
    return (folder / "config.json").is_file()


def is_complete(folder: Path) -> bool:
    """Whether a model was downloaded to its end: configuration, tokenizer and all parts of its weights."""
    has_tokenizer = any(file.is_file() for pattern in TOKENIZERS for file in folder.glob(pattern))
    return is_model(folder) and has_tokenizer and any(has_weights(folder, *parts) for parts in WEIGHTS)


def has_code(folder: Path) -> bool:
    """Whether the Python files that a configuration speaks of are there, where it does."""
    try:
        speaks_of_code = "auto_map" in read_configuration(folder / "config.json")
    except ConfigurationError:
        return False
    return not speaks_of_code or any(folder.glob("*.py"))


def has_weights(folder: Path, name: str, suffix: str) -> bool:
    """Whether the weights are there in one format: one file, or every part that the list of parts names."""
    index = folder / f"{name}{suffix}.index.json"
    if not index.is_file():
        return (folder / f"{name}{suffix}").is_file()
    try:
        parts = set(read_configuration(index).get("weight_map", {}).values())
    except (ConfigurationError, AttributeError):
        return False
    return bool(parts) and all((folder / part).is_file() for part in parts)


def from_hub(name: str, with_code: bool = False) -> Path:
    """The folder that the hub's client keeps a model in, which it downloads first where it has to."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    official, found = official_name(name), "not there as a folder"
    try:
        downloaded = Path(snapshot_download(official, local_files_only=True))
        if is_complete(downloaded) and (not with_code or has_code(downloaded)):
            return downloaded
        found = "downloaded before in part only"
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelNotFound(f"{name}: neither a folder nor a name on the hub ({one_line(error)})") from error
    try:
        check_reachable(constants.ENDPOINT)
        files = HfApi().list_repo_files(official)
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        patterns = DOWNLOADED if has_safetensors else DOWNLOADED_WITHOUT_SAFETENSORS
        return Path(snapshot_download(official, allow_patterns=[*patterns, *(("*.py",) if with_code else ())]))
    # The client has dozens of errors of its own beside those of the network below it.
    except Exception as error:
        raise ModelNotFound(
            f"{name}: {found}, and not to be had from {constants.ENDPOINT} ({one_line(error)})"
        ) from error


def revision_of(folder: Path) -> str | None:
    """The commit that a folder of the hub client's is of; None for a folder of another origin."""
    return folder.name if folder.parent.name == SNAPSHOTS else None


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
