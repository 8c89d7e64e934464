"""What the user gives: data and weights, as overrides of those experiments that need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.reproduction.claims import Input
from models.errors import UserError

PUBLISHED_MODEL = "modular_addition"
"""Of an imported clone, the folder whose networks an experiment is about."""


@dataclass(frozen=True)
class InputOption:
    """One of the command's options.

    Attributes:
        what: it is.
        key: of the configuration, that it sets.
        placeholder: what the document writes in its place.
    """

    what: str
    key: str
    placeholder: str


OPTIONS: dict[Input, InputOption] = {
    "cifar": InputOption("folder of CIFAR-10", "data.root", "DIR"),
    "stories": InputOption("pretrained decoder, a folder or a hub name", "model.name", "NAME"),
    "text": InputOption("text that the decoder reads", "data.path", "TEXT"),
    "published": InputOption(
        "the paper's networks, as import_published wrote them", "data.root", f"PUBLISHED/{PUBLISHED_MODEL}"
    ),
}
"""`--cifar`, `--stories`, and so on."""


def missing_inputs(needs: Sequence[Input], given: Mapping[Input, str], overrides: Sequence[str]) -> list[Input]:
    """What an experiment needs that neither an option nor an override says."""
    keys = {override.partition("=")[0].lstrip("+") for override in overrides}
    return [need for need in needs if need not in given and OPTIONS[need].key not in keys]


def overrides_of(needs: Sequence[Input], given: Mapping[Input, str]) -> list[str]:
    """Overrides of one experiment by the options that it needs and that were given. Raises UserError."""
    found: list[str] = []
    for need in needs:
        if need not in given:
            continue
        if need == "published":
            found += overrides_of_published(Path(given[need]))
        else:
            found.append(f"{OPTIONS[need].key}={quoted(absolute(given[need]))}")
    return found


def overrides_of_published(folder: Path) -> list[str]:
    """Where the networks lie, and the seeds that there are; raises UserError for a folder without any."""
    root = folder / PUBLISHED_MODEL
    seeds = sorted(
        int(path.parent.name.removeprefix("seed")) for path in root.glob("seed[0-9]*/checkpoint.safetensors")
    )
    if not seeds:
        raise UserError(
            f"--published {folder}: no {PUBLISHED_MODEL}/seed0/checkpoint.safetensors in it; expected what "
            "python -m experiments.import_published CLONE --out DIR wrote"
        )
    return [f"data.root={quoted(absolute(str(root)))}", f"seed={','.join(map(str, seeds))}"]


def absolute(given: str) -> str:
    """A path that is there as an absolute one, so that a sweep is known again wherever it is resumed; else as it is."""
    return str(Path(given).absolute()) if Path(given).exists() else given


def quoted(value: str) -> str:
    """As Hydra's grammar takes it: in quotes where a character would mean something else."""
    if all(character.isalnum() or character in "/-_.~" for character in value):
        return value
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"
