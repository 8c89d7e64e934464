"""What Hydra calls before the first run starts: every run's configuration is checked while nothing is written yet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from experiments.config.explanations import explain_composition
from models.errors import UserError

SWEEP = "LIB_SWEEP_DIRECTORY"
"""Environment variable that tells the jobs of a sweep, wherever they run, where its report is going to be."""
BASIC_SWEEPER, BASIC_LAUNCHER = "BasicSweeper", "BasicLauncher"
MANY_RUNS = 1000
"""From here on it is said that runs are being checked."""


def ends_the_command(check: Callable[..., None]) -> Callable[..., None]:
    """One line and exit status 2 for an error of the user's: Hydra makes warnings of a callback's exceptions."""

    @wraps(check)
    def checked(self: CheckBeforeStart, config: DictConfig, **kwargs: Any) -> None:
        try:
            check(self, config, **kwargs)
        except UserError as error:
            refuse(str(error))
        # What Hydra's loader runs into where it composes the runs of a sweep.
        except (HydraException, OmegaConfBaseException) as error:
            refuse(explain_composition(error, list(config.hydra.overrides.task), multirun=True))

    return checked


def refuse(reason: str) -> NoReturn:
    """End the command."""
    print(f"error: {reason}", file=sys.stderr)
    raise SystemExit(2)


class CheckBeforeStart(Callback):
    """Refuses a run, or a sweep of which one run could not be carried out."""

    @ends_the_command
    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        from experiments.config.composition import parse_config
        from experiments.config.model_checks import check_runs
        from experiments.config.run_directory import check_writable, refuse_foreign, refuse_inputs_within

        run, directory = parse_config(config), Path(config.hydra.run.dir)
        check_writable(Path(run.output_directory), "output_directory=")
        check_writable(directory, "hydra.run.dir=")
        refuse_foreign(directory, "hydra.run.dir=", config.hydra.output_subdir)
        refuse_inputs_within(run, directory)
        check_runs([run])

    @ends_the_command
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from experiments.config.model_checks import check_runs
        from experiments.config.run_directory import check_writable, refuse_foreign_sweep
        from experiments.config.sweep import take_over_experiments_sweep

        check_writable(Path(config.output_directory), "output_directory=")
        check_writable(Path(config.hydra.sweep.dir), "hydra.sweep.dir=")
        refuse_foreign_sweep(Path(config.hydra.sweep.dir))
        if str(config.hydra.sweeper.get("_target_", "")).endswith(BASIC_SWEEPER):
            loader = GlobalHydra.instance().config_loader()
            take_over_experiments_sweep(config, loader)
            check_runs(planned_runs(config))
            if str(config.hydra.launcher.get("_target_", "")).endswith(BASIC_LAUNCHER):
                # One run after the other in any case; the sweeper composes a batch's runs before the first of them.
                with read_write(config), open_dict(config):
                    config.hydra.sweeper.max_batch_size = 1
        stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        os.environ[SWEEP] = str(Path(config.hydra.sweep.dir).absolute() / "reports" / stamp)


def planned_runs(master: DictConfig) -> Iterator[Any]:
    """Every run's typed configuration; says what it is doing where it takes long. Raises UserError."""
    from experiments.config.composition import validated
    from experiments.config.sweep import Sweep
    from experiments.pipeline.console import progress_bar

    sweep = Sweep(master, GlobalHydra.instance().config_loader())
    if len(sweep) >= MANY_RUNS:
        print(f"checking {len(sweep):,} runs", file=sys.stderr)
    with progress_bar("checking") as progress:
        for number, plain in enumerate(sweep, start=1):
            yield validated(plain)
            if number % MANY_RUNS == 0:
                progress(number, len(sweep), "")
