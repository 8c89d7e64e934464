"""The files of one run, read with every part checked that a report uses: nothing later stumbles over a damaged one.

Each function returns what a file holds or raises DamagedRunError saying what is wrong with it. Keys that are not known
here are left alone, so that newer runs can be read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from experiments.pipeline.ablations import Ablations, ablations_from_json
from experiments.pipeline.feature_table import FeatureTable
from libcore.messages import first_line, one_line
from libcore.regular_files import regular_text

Content = TypeVar("Content")
LARGEST = 2**53
"""Counts up to here are exact as floating-point numbers; no run counts further."""
MISSING = "is missing"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The faster one, where PyYAML has it."""


class DamagedRunError(Exception):
    """A run's file that is missing or does not hold what a run writes; the message is one line."""


def read_file(path: Path, read: Callable[[Path], Content]) -> Content:
    """What `read` makes of a file; its errors become DamagedRunError, which name the file."""
    try:
        return read(path)
    except DamagedRunError:
        raise
    except FileNotFoundError as error:
        raise DamagedRunError(f"{path.name} {MISSING}") from error
    except OSError as error:
        raise DamagedRunError(f"{path.name}: {(error.strerror or one_line(error)).lower()}") from error
    except UnicodeError as error:
        raise DamagedRunError(f"{path.name}: not a text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise DamagedRunError(f"{path.name}: no whole JSON ({first_line(error)})") from error
    except RecursionError as error:
        raise DamagedRunError(f"{path.name}: nested too deeply") from error
    except (ValueError, TypeError, KeyError, AttributeError, YAMLError, OmegaConfBaseException) as error:
        raise DamagedRunError(f"{path.name}: {first_line(error)}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file. `NaN` and `Infinity` are refused: Python reads them, a run does not write them."""

    def parsed(path: Path) -> Any:
        content = json.loads(regular_text(path), parse_constant=refuse_constant)
        return writable(content)

    return read_file(path, parsed)


def refuse_constant(name: str) -> NoReturn:
    """Raises ValueError."""
    raise ValueError(f"{name} is no number in JSON")


def writable(content: Any) -> Any:
    """The content; raises ValueError for halves of surrogate pairs, which no report could be written with."""
    json.dumps(content, ensure_ascii=False, default=str).encode()
    return content


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; raises ValueError for aliases, of which a few lines stand for millions of entries."""
    text = regular_text(path)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=LOADER)):
        raise ValueError("holds aliases, which no run writes")
    return OmegaConf.to_container(OmegaConf.load(StringIO(text)))


def expect(holds: bool, file: str, expectation: str) -> None:
    """Raises DamagedRunError where a part of a file is not what it should be."""
    if not holds:
        raise DamagedRunError(f"{file}: expected {expectation}")


def is_number(value: object) -> bool:
    """A finite number that is no truth value and fits floating-point arithmetic."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST


def is_count(value: object) -> bool:
    """A whole number from zero up."""
    return isinstance(value, int) and is_number(value) and value >= 0


def is_mapping(value: object) -> bool:
    """With texts as keys."""
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def read_status(directory: Path) -> dict[str, Any]:
    """`status.json`: `status` is a text; `reason`, where there is one, becomes one."""
    content = read_json(directory / "status.json")
    expect(is_mapping(content) and isinstance(content.get("status"), str), "status.json", "an object with status")
    return content


def read_config(directory: Path) -> dict[str, Any]:
    """`config.yaml`: model, method and seed are there, and every key that a report asks for has its type."""
    file = "config.yaml"
    config: Any = read_file(directory / file, lambda path: writable(read_yaml(path)))
    expect(is_mapping(config), file, "keys and values")
    for key in ("model", "method", "seed"):
        expect(key in config, file, f"the key {key}")
    model, method, analysis = config["model"], config["method"], config.get("analysis", {})
    for key, part, name in (("model", model, "kind"), ("method", method, "name")):
        expect(is_mapping(part) and is_text(part.get(name)), file, f"a text as {key}.{name}")
    expect("name" not in model or is_text(model["name"]), file, "a text as model.name")
    expect(method.get("label") is None or is_text(method["label"]), file, "a text as method.label")
    expect(is_count(config["seed"]), file, "a whole number as seed")
    expect(is_mapping(analysis), file, "keys and values as analysis")
    expect(analysis.get("half") in (None, "first", "second"), file, "first, second or null as analysis.half")
    return config


def is_text(value: object) -> bool:
    """A text that is not empty."""
    return isinstance(value, str) and bool(value.strip())


def read_metrics(directory: Path) -> dict[str, float | int | None]:
    """`metrics.json`: at least one metric, each a number or null."""
    content = read_json(directory / "metrics.json")
    expect(is_mapping(content) and bool(content), "metrics.json", "an object of numbers")
    for key, value in content.items():
        expect(value is None or is_number(value), "metrics.json", f"a number or null as {key}")
    return content


def read_ablations(directory: Path) -> Ablations | None:
    """`ablations.json`; None where the run did not ablate."""
    path = directory / "ablations.json"
    if not path.exists():
        return None
    content = read_json(path)
    check_ablations(content, path.name)
    return read_file(path, lambda _: ablations_from_json(content))


def check_ablations(content: Any, file: str) -> None:
    """Raises DamagedRunError for content that is not what `ablations_to_json` makes."""
    expect(is_mapping(content), file, "an object")
    expect(is_number(content.get("test_score")), file, "a number as test_score")
    score = content.get("score", {"name": "accuracy", "lower_is_better": False})
    is_score = is_mapping(score) and is_text(score.get("name")) and isinstance(score.get("lower_is_better"), bool)
    expect(is_score and len(score) == 2, file, "name and lower_is_better as score")
    for scores_key, needed_key in (("node_ablation", "nodes_needed"), ("edge_ablation", "edges_needed")):
        curves, needed = content.get(scores_key), content.get(needed_key)
        expect(is_mapping(curves), file, f"an object as {scores_key}")
        expect(is_mapping(needed), file, f"an object as {needed_key}")
        for layer, curve in curves.items():
            expect(is_mapping(curve) and bool(curve), file, f"scores of {layer} in {scores_key}")
            for kept, value in curve.items():
                expect(kept.isdecimal() and is_count(int(kept)), file, f"numbers kept as keys of {scores_key}")
                expect(value is None or is_number(value), file, f"numbers as scores in {scores_key}")
            counts = needed.get(layer)
            expect(is_mapping(counts), file, f"counts of {layer} in {needed_key}")
            for tolerance, count in counts.items():
                expect(is_tolerance(tolerance) and is_count(count), file, f"counts by tolerance in {needed_key}")


def is_tolerance(text: str) -> bool:
    """A plain number from zero up."""
    whole, _, fraction = text.partition(".")
    return whole.isdecimal() and len(text) < 30 and (fraction.isdecimal() or "." not in text)


def read_table(directory: Path) -> FeatureTable | None:
    """`features.json`; None where the run has no features."""
    path = directory / "features.json"
    if not path.exists():
        return None
    content, file = read_json(path), path.name
    expect(is_mapping(content), file, "an object")
    for key, kind, what in (("labels", str, "texts"), ("communities", int, "whole numbers")):
        part = content.get(key)
        expect(is_mapping(part), file, f"an object as {key}")
        for layer, entries in part.items():
            is_list = isinstance(entries, list) and all(type(entry) is kind for entry in entries)
            expect(is_list, file, f"a list of {what} as {key} of {layer}")
            expect(kind is str or all(abs(entry) <= LARGEST for entry in entries), file, f"numbers of {key}")
    return FeatureTable(content["labels"], content["communities"])


def shown_path(path: Path) -> str:
    """A path as text that can be passed on: relative where it lies below the current folder, without a home's name.

    Bytes that are no UTF-8 become a replacement character.
    """
    here = Path.cwd()
    short = path.relative_to(here) if path.is_absolute() and path != here and path.is_relative_to(here) else path
    return os.fsencode(short).decode("utf-8", errors="replace")
