"""`lib-benchmark stages`: what is measured, in order, and where the results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from models.errors import UserError

MODELS = ("modular_addition", "cifar10_mlp", "cifar10_cnn", "decoder")
PARTS = ("models", "scaling", "memory", "threads", "dtypes")
PROGRAM = "lib-benchmark stages"


def main(arguments: Sequence[str]) -> None:
    """Raises UserError."""
    options = parser().parse_args(arguments)
    chosen = {
        "models": names_of("--models", options.models, MODELS),
        "parts": names_of("--parts", options.parts, PARTS),
    }
    if options.runs < 1:
        raise UserError(f"--runs {options.runs}: expected 1 or more")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: expected 1 or more")
    from experiments.benchmarks.sources import Sources, checkpoints_of
    from experiments.benchmarks.whole import Choice, benchmark
    from experiments.config.own_folder import own_folder

    sources = Sources(
        checkpoints_of(options.checkpoint, ("modular_addition", "cifar10_mlp", "cifar10_cnn")),
        options.cifar,
        options.stories,
        options.text,
        options.output_directory,
        options.device,
    )
    folder = options.out or Path(options.output_directory) / "bench" / datetime.now().strftime("%Y%m%d-%H%M%S")
    with own_folder(folder, "--out"):
        benchmark(Choice(**chosen, runs=options.runs, threads=options.threads, quick=options.quick), sources, folder)


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    of_command = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Times every stage against the straightforward way, one backward pass per output feature, and "
        "against the limit that this machine's matrix products set; writes JSON, Markdown and plots.",
    )
    add = of_command.add_argument
    add("--models", default=",".join(MODELS), help="some of %(default)s")
    add("--parts", default=",".join(PARTS), help="some of %(default)s")
    add("--quick", action="store_true", help="toy sizes: to see it work, not to measure")
    add("--runs", type=int, default=3, help="of everything that is timed; the median counts (%(default)s)")
    add("--threads", type=int, help="of the CPU; one a core by default")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    add("--checkpoint", action="append", default=[], metavar="MODEL=PATH", help="weights; may be given several times")
    add("--cifar", metavar="PATH", help="folder of CIFAR-10; random images by default")
    add("--stories", metavar="PATH", help="pretrained decoder, a folder or a hub name; random weights by default")
    add("--text", metavar="PATH", help="what the pretrained decoder reads; Python's own reference by default")
    add("--output-directory", default="outputs", help="of runs and their cache (%(default)s)")
    add("--out", type=Path, metavar="DIR", help="of the results; a new folder in bench/ there by default")
    return of_command


def names_of(option: str, given: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names between commas, in the order of those that there are; raises UserError for another."""
    names = [name for name in given.split(",") if name]
    for name in names or [given]:
        if name not in known:
            raise UserError(f"{option} {given}: no such {option[2:-1]} {name!r}; expected some of {', '.join(known)}")
    return tuple(name for name in known if name in names)
