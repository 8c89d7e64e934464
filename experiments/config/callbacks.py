"""What Hydra calls before the first run starts: every run's configuration is checked while nothing is written yet."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.config.explanations import explain_composition
from experiments.config.repeated_options import refuse_two_options
from experiments.one_of_several import number_of_processes
from libcore.messages import one_line
from models.errors import UserError


def ends_the_command(check: Callable[..., None]) -> Callable[..., None]:
    """One line and exit status 2 for an error of the user's: Hydra makes warnings of a callback's exceptions."""

    @wraps(check)
    def checked(self: CheckBeforeStart, config: DictConfig, **kwargs: Any) -> None:
        try:
            refuse_two_options(config.hydra.overrides)
            check(self, config, **kwargs)
        except UserError as error:
            refuse(str(error))
        # What Hydra's loader runs into where it composes the runs of a sweep; some of it is an OSError, too.
        except (HydraException, OmegaConfBaseException) as error:
            refuse(explain_composition(error, list(config.hydra.overrides.task), multirun=True))
        except OSError as error:
            refuse(one_line(error))

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
        from experiments.config.run_directory import (
            check_writable,
            refuse_foreign,
            refuse_inputs_within,
            refuse_output_subdir,
        )

        refuse_output_subdir(config.hydra.output_subdir)
        run, directory = parse_config(config), Path(config.hydra.run.dir)
        check_writable(Path(run.output_directory), "output_directory=")
        check_writable(directory, "hydra.run.dir=")
        refuse_foreign(directory, "hydra.run.dir=")  # Hydra has not written anything yet
        refuse_inputs_within(run, directory)
        check_runs([run])

    @ends_the_command
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from experiments.config.run_directory import check_writable, refuse_foreign_sweep, refuse_output_subdir
        from experiments.config.sweep_checks import check_sweep, is_overridden, seed_sampler, set_direction
        from experiments.sweeps.parallel_jobs import share_out_cores
        from experiments.sweeps.record import SWEEP, SweepRecord

        if (n_processes := number_of_processes()) > 1:
            raise UserError(f"a sweep in {n_processes} processes; expected a single run (hydra.mode=RUN)")
        refuse_output_subdir(config.hydra.output_subdir)
        check_writable(Path(config.output_directory), "output_directory=")
        check_writable(Path(config.hydra.sweep.dir), "hydra.sweep.dir=")
        refuse_foreign_sweep(Path(config.hydra.sweep.dir))
        n_jobs = check_sweep(config)
        direction = set_direction(config)
        seed_sampler(config)
        share_out_cores(config.hydra.launcher, n_jobs, is_overridden(config, "hydra.launcher.timeout_min"))
        if SWEEP not in os.environ:  # else it is resumed
            stamp = f"{datetime.now():%Y%m%d-%H%M%S-%f}"
            record = SweepRecord(Path(config.hydra.sweep.dir).absolute() / "reports" / stamp)
            record.sweep_beside()
            record.begin(sys.argv[1:], n_jobs, config.objective, direction)
            os.environ[SWEEP] = str(record.folder)
