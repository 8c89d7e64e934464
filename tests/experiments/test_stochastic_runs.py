"""A run with `analysis.estimator=stochastic`: its sampling errors are logged, measured and found again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from running import NODE_LAYERS, TOY, read_json, reused, run_here, tensors_of

SETTINGS = (*TOY, "analysis.stages=[basis,edges]", "tracking.mode=disabled")
STOCHASTIC = (*SETTINGS, "analysis.estimator=stochastic", "analysis.probes.n=4")


def sampling_errors(run: Path) -> dict[str, float]:
    """What a run's metrics say of its estimator."""
    metrics = read_json(run / "metrics.json")
    return {key.removeprefix("estimator/"): value for key, value in metrics.items() if key.startswith("estimator/")}


def test_errors_are_logged_measured_and_survive_the_stage_cache(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, logger="experiments")
    first = run_here(tmp_path, "first", *STOCHASTIC)
    errors = sampling_errors(first)
    expected = {f"{stage}_error/{layer}" for stage in ("basis", "edges") for layer in NODE_LAYERS[:-1]}
    assert set(errors) == expected
    assert all(0 <= error < 1 for error in errors.values())
    assert errors[f"basis_error/{NODE_LAYERS[0]}"] > 1e-4
    for key, error in errors.items():
        stage, layer = key.split("_error/")
        line = f"{stage}: {layer}: sampling error {error:.1e}, by halves of the probes"
        assert caplog.messages.count(line) == 1

    again = run_here(tmp_path, "again", *STOCHASTIC)
    assert reused(again)["basis"]
    assert reused(again)["edges"]
    assert sampling_errors(again) == errors


def test_probes_are_part_of_the_key_of_stochastic_runs_only(tmp_path: Path) -> None:
    run_here(tmp_path, "auto", *SETTINGS)
    other_probes = run_here(tmp_path, "auto_other_probes", *SETTINGS, "analysis.probes.seed=1")
    assert reused(other_probes)["basis"]
    assert reused(other_probes)["edges"]
    assert not sampling_errors(other_probes)

    first = run_here(tmp_path, "stochastic", *STOCHASTIC)
    second = run_here(tmp_path, "stochastic_other_probes", *STOCHASTIC, "analysis.probes.seed=1")
    assert not reused(second)["basis"]
    assert not reused(second)["edges"]
    name = f"importance/{NODE_LAYERS[0]}"
    assert not torch.equal(tensors_of(first)[name], tensors_of(second)[name])


@pytest.mark.parametrize("over", ["positions", "positions_and_features"])
def test_many_probes_come_near_the_closed_form(tmp_path: Path, over: str) -> None:
    exact = tensors_of(run_here(tmp_path, "auto", *SETTINGS))
    probes = (f"analysis.probes.over={over}", "analysis.probes.n=64", "analysis.estimator=stochastic")
    estimated = tensors_of(run_here(tmp_path, "stochastic", *SETTINGS, *probes))
    for layer in NODE_LAYERS[:-1]:
        importance, other = exact[f"importance/{layer}"], estimated[f"importance/{layer}"]
        # Where few directions are read, the closed form lists no others; the estimate has them, all but zero.
        other = other[: len(importance)]
        assert (importance - other).norm() < 0.1 * importance.norm()
