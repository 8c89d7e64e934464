"""`python -m experiments.run model=M method=K seed=S ...`: one run, or with `-m` a sweep that ends with a report.

Hydra composes and launches; `config/callbacks.py` checks every run before the first one starts. torch and everything
that needs it are imported only once a run is to be carried out, so that help and completion answer at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.command_end import FAILED, USER_ERROR, nobody_reads
from experiments.config import model_titles  # noqa: F401  # pyright: ignore[reportUnusedImport] - registers the resolver that `conf/` names directories by
from experiments.config.command_line import overrides_in, refuse_unknown_options
from experiments.config.explanations import explain_composition
from experiments.config.folder import CONFIG_DIRECTORY
from experiments.interruptions import end_in_order, exit_status_of, reason_of
from experiments.one_of_several import begin_as_one_of_several, first_speaks_first
from experiments.start_up import collect_garbage_rarely, process_of, refuse_deleted_folder
from experiments.sweeps.ending import end_sweep, exit_status
from experiments.sweeps.parallel_jobs import jobs_wait_for_slots, slot
from experiments.sweeps.record import STARTED, SWEEP, Job, SweepRecord, forget_skipped, resumed
from libcore.messages import first_line, one_line
from models.errors import UserError

log = logging.getLogger("experiments.run")  # under `python -m` this module is called __main__


@hydra.main(config_path=str(CONFIG_DIRECTORY), config_name="config", version_base="1.3")
def run(composed: DictConfig) -> float | None:
    """One job: its directory says whether it is running, finished or failed, and why. What `objective` asks for."""
    hydra_config, folder = HydraConfig.get(), os.environ.get(SWEEP)
    directory, overrides = Path(hydra_config.runtime.output_dir), tuple(hydra_config.overrides.task)
    if folder is None:
        job = carried_out(composed, Job(0, overrides, str(directory), STARTED), None)
        single_runs.append(job)
        return job.objective
    job, record = Job(hydra_config.job.num, overrides, str(directory), STARTED), SweepRecord(Path(folder))
    if (earlier := record.finished(overrides)) is not None:
        log.info("finished before: %s", earlier.directory)
        forget_skipped(directory)
        record.note(replace(earlier, number=job.number))
        return earlier.objective
    with slot(record.folder):
        return carried_out(composed, job, record).objective


def carried_out(composed: DictConfig, job: Job, record: SweepRecord | None) -> Job:
    """The run itself, and how it came out; a sweep's record is told when it begins and ends."""
    from experiments.causes import user_cause
    from experiments.config.composition import parse_config
    from experiments.config.run_directory import held, refuse_foreign, refuse_inputs_within, refuse_second_run
    from experiments.pipeline.recorded_run import carry_out, objective_of

    end_in_order()  # a launcher's process knows nothing of it
    hydra_config, directory, ended = HydraConfig.get(), Path(job.directory), replace(job, status="failed")
    option = "hydra.run.dir=" if record is None else "hydra.sweep.subdir: "
    try:
        # Relative paths mean the folder that the user stands in, also where Hydra changes into the run's directory.
        with contextlib.chdir(hydra_config.runtime.cwd):
            config = parse_config(composed)
            with held(directory, option):
                refuse_foreign(directory, option, hydra_config.output_subdir)
                refuse_inputs_within(config, directory)
                if record is not None:
                    refuse_second_run(directory, str(record.folder), job.number)
                    record.note(job)
                sweep = None if record is None else (str(record.folder), job.number)
                status = carry_out(config, directory, sweep, " ".join(job.overrides))
                ended = replace(job, status=status, objective=objective_of(directory, config.objective))
    except UserError as error:  # before anything was written: the directory is somebody else's
        log.error("%s", error)
        ended = replace(job, status="refused", reason=str(error))
    except OSError as error:  # the directory itself cannot be read or written
        if (cause := user_cause(error)) is None:
            raise
        log.error("%s", cause)
        ended = replace(job, status="refused", reason=cause)
    except KeyboardInterrupt:
        ended = replace(job, status="interrupted")
        raise
    finally:
        if record is not None:
            record.note(ended)
    return ended


single_runs: list[Job] = []
"""Of this process, where there is no sweep."""


def main() -> None:
    """Run, report; the exit status is 2 for an error of the user's."""
    collect_garbage_rarely()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a ? in its place
    os.environ["MPLBACKEND"] = "agg"  # a notebook's is of no use here, and may not be installed
    os.environ.pop(SWEEP, None)
    end_in_order()
    logging.raiseExceptions = False  # a log that cannot be written is no reason to print a traceback for each line
    single_runs.clear()
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it would print in many lines
    try:
        refuse_deleted_folder()
        begin_as_one_of_several()
        if any(argument.partition("=")[0] == "--rerun" for argument in sys.argv[1:]):
            from experiments.reruns.command import rerun

            sys.exit(rerun(sys.argv[1:]))
        refuse_unknown_options()
        resume_sweep()
        run()
        sys.exit(end_sweep(SweepRecord(Path(os.environ[SWEEP]))) if SWEEP in os.environ else exit_status(single_runs))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as interruption:
        print(f"{reason_of(interruption)}: finished stages are kept and found again", file=sys.stderr)
        if jobs_wait_for_slots():
            print("jobs that were begun go on in the background", file=sys.stderr)
        if SWEEP in os.environ:
            print(f"lib-run --resume {os.environ[SWEEP]} finishes what has not", file=sys.stderr)
        sys.exit(exit_status_of(interruption))
    except BrokenPipeError:
        sys.exit(nobody_reads())
    # Composition: Hydra, its plugins, its grammar and OmegaConf raise whatever they run into.
    except Exception as error:
        if wants_traceback:
            raise
        sys.exit(explain(error))
    finally:
        if not wants_traceback:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def explain(error: Exception) -> int:
    """Say why a command could not be carried out, or not to its end. The exit status."""
    from experiments.causes import user_cause  # imports torch

    cause = user_cause(error)
    if SWEEP not in os.environ and cause is not None:
        print(f"error: {cause}", file=sys.stderr)
        return USER_ERROR
    if SWEEP not in os.environ:
        print(f"error: {one_line(explain_composition(error, overrides_in(sys.argv[1:])))}", file=sys.stderr)
        return USER_ERROR
    # The sweeper's or launcher's own: what has finished until then is reported on.
    print(f"error: {cause or first_line(error)}", file=sys.stderr)
    record = SweepRecord(Path(os.environ[SWEEP]))
    return max(FAILED, end_sweep(record)) if record.jobs() or jobs_wait_for_slots() else USER_ERROR


def resume_sweep() -> None:
    """`--resume DIR [overrides]`: the arguments of the sweep in DIR take the place of the command's; UserError."""
    arguments = [
        part
        for argument in sys.argv[1:]
        for part in (argument.split("=", 1) if argument.startswith("--resume=") else [argument])
    ]
    if "--resume" not in arguments:
        return
    at = arguments.index("--resume")
    if not arguments[at + 1 :]:
        raise UserError("--resume: expected the folder of a sweep's report behind it")
    from experiments.config.run_directory import remove_temporaries

    record, others = resumed(Path(arguments[at + 1])), [*arguments[:at], *arguments[at + 2 :]]
    if strange := [argument for argument in others if not argument.startswith("hydra")]:
        raise UserError(
            f"{strange[0]}: a sweep is resumed as it was begun; expected --resume DIR, and hydra's own keys"
        )
    content = record.content()
    if record.goes_on():
        raise UserError(f"--resume {record.folder}: the sweep still runs; expected one that has ended")
    remove_temporaries(record.folder, lambda name: True)  # the folder is the sweep's own
    # Relative paths mean the folder that the sweep was begun in.
    if (begun_in := content.get("from")) is not None:
        try:
            os.chdir(begun_in)
        except OSError as error:
            raise UserError(f"--resume {record.folder}: begun in {begun_in}, which is not there any more") from error
    anew = {argument.partition("=")[0] for argument in others if "=" in argument}
    sys.argv[1:] = [*(one for one in content["arguments"] if one.partition("=")[0] not in anew), *others]
    os.environ[SWEEP] = str(record.folder)


def command() -> None:
    """`main` as all that the process is for."""
    process_of(lambda: first_speaks_first(main))


if __name__ == "__main__":
    from experiments.run import command as command_of_module  # by its own name a job can be sent to another process

    command_of_module()
