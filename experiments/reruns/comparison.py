"""Two runs of one configuration, file by file: what is the same, and how far apart the rest is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from experiments.config.run_directory import read_status
from libcore.tensor_files import read_tensors
from models.content_hashes import file_hash

TIMED = ("time/", "memory/", "estimate/")
"""Metrics that no two runs share."""
LEFT_OUT = ("timings.json",)
WITHOUT_EFFECT = ("output_directory", "tracking")
"""Keys of the configuration that a rerun has of its own."""
SAME = "the same"


def compare_runs(first: Path, second: Path) -> tuple[list[str], bool]:
    """A line for each file, and whether nothing differs but times; inputs and environment that differ are said too."""
    one, other = read_status(first) or {}, read_status(second) or {}
    lines = [*environment_differences(one.get("environment", {}), other.get("environment", {}))]
    if one.get("weights") != other.get("weights"):
        lines.append("weights: others")
    is_same = True
    for name in sorted(set(one["hashes"]) | set(other["hashes"])):
        if name in LEFT_OUT:
            continue
        said = difference(first, second, name, one["hashes"].get(name))
        is_same &= said == SAME
        lines.append(f"{name}: {said}")
    lines.append(f"{second}: {'the same results' if is_same else 'other results'} as {first}")
    return lines, is_same


def environment_differences(one: dict[str, Any], other: dict[str, Any]) -> Iterator[str]:
    """Versions, threads, processor: what may explain other results."""
    for key in sorted(set(one) | set(other)):
        if one.get(key) != other.get(key):
            yield f"{key}: {one.get(key)} then, {other.get(key)} now"


def difference(first: Path, second: Path, name: str, recorded: str | None) -> str:
    """In a few words."""
    one, other = first / name, second / name
    if not one.is_file() or not other.is_file():
        return f"only in {second if other.is_file() else first}"
    if recorded is not None and file_hash(one) != recorded:
        return f"changed in {first} since the run"
    if one.read_bytes() == other.read_bytes():
        return SAME
    if one.suffix == ".json":
        found = [json.loads(path.read_text(encoding="utf-8")) for path in (one, other)]
        return values_apart(*map(flat, found))
    if one.suffix == ".yaml":
        found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (one, other)]
        return values_apart(
            *(flat({key: value for key, value in content.items() if key not in WITHOUT_EFFECT}) for content in found)
        )
    return tensors_apart(one, other) if one.suffix == ".safetensors" else "differs"


def flat(content: Any, name: str = "") -> dict[str, Any]:
    """Values of nested JSON by their path."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        return {
            key: value
            for part, within in items
            for key, value in flat(within, f"{name}: {part}" if name else str(part)).items()
        }
    return {name: content}


def values_apart(one: dict[str, Any], other: dict[str, Any]) -> str:
    """`2 of 40 values differ, such as KEY: 1 then, 2 now`; times and memory are not looked at."""
    keys = [key for key in {**one, **other} if not key.startswith(TIMED)]
    apart = [key for key in keys if one.get(key) != other.get(key) and not both_nan(one.get(key), other.get(key))]
    if not apart:
        return SAME
    key = apart[0]
    return f"{len(apart)} of {len(keys)} values differ, such as {key}: {one.get(key)} then, {other.get(key)} now"


def both_nan(one: Any, other: Any) -> bool:
    """Equal as measures go, not as numbers do."""
    return isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)


def tensors_apart(one: Path, other: Path) -> str:
    """`3 of 40 tensors differ, by up to 1.2e-15 (NAME)`; or the header does."""
    (tensors, header), (others, other_header) = read_tensors(one), read_tensors(other)
    apart: dict[str, float] = {}
    for name in {**tensors, **others}:
        first, second = tensors.get(name), others.get(name)
        if first is None or second is None or first.shape != second.shape:
            apart[name] = math.inf
        elif first.dtype != second.dtype or not first.equal(second):
            apart[name] = (first.double() - second.double()).abs().max().item()
    if apart:
        worst = max(apart, key=lambda name: apart[name])
        return f"{len(apart)} of {len(tensors)} tensors differ, by up to {apart[worst]:.2g} ({worst})"
    keys = sorted(key for key in {**header, **other_header} if header.get(key) != other_header.get(key))
    return f"the header differs in {', '.join(keys)}"
