"""The whole benchmark: models, scaling curves, threads beside a busy process, float32; written as results come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.busy import threads_beside_a_busy_process
from experiments.benchmarks.cases import Case
from experiments.benchmarks.drawn_cases import drawn_decoder, image_cnn, image_mlp
from experiments.benchmarks.dtypes import float32_against_float64
from experiments.benchmarks.machine import load, machine, matrix_rates, threads
from experiments.benchmarks.memory import peak_memory
from experiments.benchmarks.of_model import benchmark_model
from experiments.benchmarks.scaling import flat_in_output_features, scaling_curves
from experiments.benchmarks.sizes import FULL, QUICK
from experiments.benchmarks.sources import Sources
from experiments.benchmarks.tables import markdown_of
from experiments.benchmarks.trained_cases import modular_addition, pretrained_decoder
from experiments.config.model_checks import resolve_device
from experiments.pipeline.json_files import write_json, write_text
from experiments.pipeline.resources import keep_freed_memory

FLOAT32_MODELS = ("modular_addition", "cifar10_mlp")
BUSY_MODEL = "modular_addition"


@dataclass(frozen=True)
class Choice:
    """What is measured: models, parts, runs of each, threads (None: as many as torch takes), toy sizes."""

    models: Sequence[str]
    parts: Sequence[str]
    runs: int
    threads: int | None
    quick: bool


def benchmark(choice: Choice, sources: Sources, folder: Path) -> dict[str, Any]:
    """Measure, and write `benchmark.json`, `benchmark.md` and plots into the folder. Raises UserError."""
    keep_freed_memory()
    with threads(choice.threads or torch.get_num_threads()):
        return measured_parts(choice, sources, folder)


def measured_parts(choice: Choice, sources: Sources, folder: Path) -> dict[str, Any]:
    """With the threads that torch may use now."""
    device, sizes = resolve_device(sources.device), QUICK if choice.quick else FULL
    cases = {name: case_of(name, sources, choice.quick) for name in needed(choice)}
    with threads(1):
        rates_of_one = matrix_rates(device, sizes.matrices)
    results: dict[str, Any] = {
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "runs": choice.runs,
        "quick": choice.quick,
        "matrix_rates": matrix_rates(device, sizes.matrices),
        "matrix_rates_of_one_thread": rates_of_one,
        "models": [],
        "scaling": [],
        "flat_in_output_features": {},
        "memory": {},
        "busy": [],
        "dtypes": [],
    }

    def save() -> None:
        results["load_after"] = load()
        write_json(folder / "benchmark.json", results)
        write_text(folder / "benchmark.md", markdown_of(results))

    save()
    if "models" in choice.parts:
        for name in choice.models:
            row = benchmark_model(cases[name](), choice.runs, results["matrix_rates"], rates_of_one, tell)
            results["models"].append(row)
            save()
    if "scaling" in choice.parts:
        results["scaling"] = scaling_curves(sizes.scaling_unit, choice.runs, device, tell)
        results["flat_in_output_features"] = flat_in_output_features(results["scaling"])
        draw(results["scaling"], folder)
        save()
    if "memory" in choice.parts:
        results["memory"] = peak_memory(sizes, device, tell)
        draw_memory(results["memory"], folder)
        save()
    if "threads" in choice.parts and BUSY_MODEL in cases:
        results["busy"] = threads_beside_a_busy_process(cases[BUSY_MODEL](), choice.runs, tell)
        save()
    if "dtypes" in choice.parts:
        for name in FLOAT32_MODELS:
            if name in cases:
                results["dtypes"] += float32_against_float64(cases[name](), choice.runs, tell)
                save()
    print((folder / "benchmark.md").read_text(encoding="utf-8"))
    print(f"written to {folder}")
    return results


def needed(choice: Choice) -> list[str]:
    """Models that any part is measured on."""
    return list(choice.models) if {"models", "threads", "dtypes"} & set(choice.parts) else []


def case_of(name: str, sources: Sources, quick: bool) -> Callable[[], Case]:
    """Made when it is asked for, once."""
    sizes = QUICK if quick else FULL
    if name == "decoder":
        make = drawn_decoder if sources.stories is None else pretrained_decoder
    else:
        make = {"modular_addition": modular_addition, "cifar10_mlp": image_mlp, "cifar10_cnn": image_cnn}[name]
    return cache(lambda: make(sources, sizes))


def draw(curves: list[dict[str, Any]], folder: Path) -> None:
    """The scaling curves."""
    from experiments.benchmarks.scaling_figure import scaling_figure
    from experiments.figures.saving import save_figure

    save_figure(scaling_figure(curves), folder, "scaling")


def draw_memory(memory: dict[str, Any], folder: Path) -> None:
    """Peak memory by tokens."""
    from experiments.benchmarks.memory_figure import memory_figure
    from experiments.figures.saving import save_figure

    save_figure(memory_figure(memory), folder, "memory")


def tell(line: str) -> None:
    """What has just been measured."""
    print(line, flush=True)
