"""`python -m experiments.benchmark KEY=VALUE...`: closed form against differentiation and probes, section by section.

Takes the overrides of `experiments.run`. For every layer pair: seconds for the Jacobian Gram by the closed form and by
differentiation on the same examples, how many times faster the one is, and how far the two are apart. Beside them the
seconds that `analysis.probes` take, their error, and what they say of it themselves.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from models.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.config.schema import RunConfig
    from libcore.chain import Chain

Result = TypeVar("Result")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 2 for an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark", description="Times closed forms against differentiation and probes."
    )
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for experiments.run")
    parser.add_argument("--layer", action="append", help="time this node layer only; may be given several times")
    parsed = parser.parse_args(arguments)
    try:
        compare_estimators(parsed.overrides, parsed.layer)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def compare_estimators(overrides: list[str], layers: list[str] | None) -> None:
    """Fit LIB; at each chosen layer time all estimators. Prints one line a layer."""
    import torch

    from experiments.config.composition import config_of
    from experiments.config.settings import probes_of
    from experiments.pipeline.resources import keep_freed_memory
    from libcore.estimators import jacobian_gram
    from libcore.estimators.stochastic import stochastic_jacobian_gram
    from libcore.methods import FitSettings
    from libcore.methods.lib import fit_lib
    from libcore.quadrature import GRADIENT
    from libcore.sections import ClosedForm
    from libcore.statistics import chain_statistics

    keep_freed_memory()
    config = config_of(overrides)
    chain, inputs = chain_and_inputs(config, layers)
    budget, probes = config.analysis.memory_bytes, probes_of(config)
    bases = fit_lib(chain, inputs, chain_statistics(chain, inputs, budget), FitSettings(memory_budget=budget))
    print(
        f"Jacobian Gram on {len(inputs)} examples, {config.dtype}, {torch.get_num_threads()} threads, {probes.n} probes"
    )
    for index, section in enumerate(chain.sections):
        layer = chain.node_layers[index]
        if not isinstance(section, ClosedForm) or layer not in (layers or chain.node_layers):
            continue
        stream, next_basis = chain.stream(inputs, index, budget), bases[chain.node_layers[index + 1]]
        arguments = (section, stream, next_basis, GRADIENT)
        fast, fast_seconds = timed(partial(jacobian_gram, *arguments, "closed_form"))
        slow, slow_seconds = timed(partial(jacobian_gram, *arguments, "exact"))
        probed = partial(stochastic_jacobian_gram, section, stream, next_basis, GRADIENT, probes)
        estimate, probed_seconds = timed(probed)
        apart = ((fast - slow).abs().max() / slow.abs().max()).item()
        error = ((estimate.value - slow).norm() / slow.norm()).item()
        print(
            f"{layer}: closed form {fast_seconds:.3g} s, differentiation {slow_seconds:.3g} s, "
            f"{slow_seconds / fast_seconds:.0f} times; {apart:.0e} apart; "
            f"probes {probed_seconds:.3g} s, error {error:.1e}, by their halves {estimate.relative_error:.1e}"
        )


def chain_and_inputs(config: RunConfig, layers: list[str] | None) -> tuple[Chain, Tensor]:
    """The model of this configuration, trained if it has not been, and what it is fitted on."""
    import torch

    from experiments.config.model_checks import check_runs, resolve_device
    from experiments.pipeline.cache import StageCache
    from experiments.pipeline.stages import model_file, model_stage
    from models.node_layer_selection import check_name
    from models.room import room_of

    check_runs([config])
    room, device = room_of(config.model_settings), resolve_device(config.device)
    for layer in layers or ():
        try:
            check_name(layer, room.node_layers[:-1])
        except ValueError as error:
            raise UserError(f"--layer {error}") from error
    file = model_file(model_stage(StageCache(config.cache_directory, device), room))
    model = room.analysed(file, device)
    return model.chain(getattr(torch, config.dtype)), model.fit_inputs(config.analysis.n_examples, config.analysis.half)


def timed(compute: Callable[[], Result]) -> tuple[Result, float]:
    """What `compute` returns, and its seconds."""
    start = time.perf_counter()
    result = compute()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
