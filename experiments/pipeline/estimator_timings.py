"""Closed form against differentiation and probes: seconds of the Jacobian Gram, and how far the results are apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from experiments.config.composition import config_of
from experiments.config.model_checks import check_runs, resolve_device
from experiments.config.schema import RunConfig
from experiments.config.settings import probes_of
from experiments.pipeline.cache import StageCache
from experiments.pipeline.model_stage import model_file, model_stage
from experiments.pipeline.resources import keep_freed_memory
from libcore.chain import Chain
from libcore.estimators import jacobian_gram
from libcore.estimators.stochastic import stochastic_jacobian_gram
from libcore.fit_settings import FitSettings
from libcore.methods.lib import fit_lib
from libcore.quadrature import GRADIENT
from libcore.sections import ClosedForm
from libcore.statistics import chain_statistics
from models.errors import UserError
from models.node_layer_selection import check_name
from models.room import room_of

Result = TypeVar("Result")


def compare_estimators(overrides: list[str], layers: list[str] | None) -> None:
    """Fit LIB; at each chosen layer time all estimators. Prints one line a layer."""
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
