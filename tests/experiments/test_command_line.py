"""The command as the shell sees it: sweeps, exit status, interruption, help."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import yaml
from running import assert_says, clean_environment, command, config_of, files_below, read_json, started_runs

from experiments.config.folder import CONFIG_DIRECTORY


class TestSweeps:
    def test_several_values_without_a_sweep(self, refused):
        assert_says(refused("seed=0,1"), "seed=0,1", "-m")

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["seed=0,-1,2"], ("seed=-1", "greater than or equal to 0")),
            (["seed=range(0,3)", "model.modulus=7,1"], ("model.modulus=1", "greater than or equal to 2")),
            (["method=lib,libb,pca"], ("method=libb", "did you mean lib?")),
            (["seed=0,1", "device=cpu,cuda:99"], ("device=cuda:99",)),
            (["method=lib,pca", "method.jacobian=path"], ("method.jacobian",)),
            (["experiment=demo", "seed=0,-1"], ("seed=-1",)),
            (["method=glob(*,exclude=file)", "seed=-1"], ("seed=-1",)),
            (["method=glob(*)"], ("method.path",)),
        ],
    )
    def test_nothing_starts_if_one_run_is_bad(self, refused, arguments, expected):
        assert_says(refused("-m", *arguments), *expected)

    def test_an_experiment_s_own_sweep_is_checked(self, refused):
        assert_says(refused("experiment=demo", "+hydra.sweeper.params.seed='0,-1'"), "seed=-1")

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["experiment=demo"], {("lib", 0), ("pca", 0)}),
            (["experiment=demo", "method=pca"], {("pca", 0)}),
            (["-m", "experiment=demo", "method=pca", "seed=3,4"], {("pca", 3), ("pca", 4)}),
            (["experiment=modular_addition", "seed=5"], {("lib", 5), ("pca", 5)}),
            (
                ["-m", "experiment=modular_addition", "seed=range(1,3)"],
                {(m, s) for m in ("lib", "pca") for s in (1, 2)},
            ),
        ],
    )
    def test_the_command_line_replaces_what_an_experiment_sweeps_over(self, tmp_path, monkeypatch, arguments, expected):
        configs = started_runs(tmp_path, monkeypatch, *arguments)
        assert sorted((config.method.name, config.seed) for config in configs) == sorted(expected)

    def test_experiments_that_sweep_over_the_same_are_swept_over_together(self, tmp_path, monkeypatch):
        configs = started_runs(tmp_path, monkeypatch, "-m", "experiment=demo,digits")
        assert sorted((config.model.kind, config.method.name) for config in configs) == [
            ("cifar10_mlp", "lib"),
            ("cifar10_mlp", "pca"),
            ("modular_addition", "lib"),
            ("modular_addition", "pca"),
        ]

    def test_experiments_that_do_not_are_refused(self, refused):
        line = refused("-m", "experiment=demo,modular_addition")
        assert_says(line, "experiment=demo,modular_addition", "expected one at a time")

    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            ("seed=interval(0,1)", ("seed=interval(0,1)", "continuous", "hydra/sweeper=")),
            ("seed=range(0)", ("seed=range(0)", "stands for no value")),
            ("method=glob(zzz*)", ("method=glob(zzz*)", "stands for no value", "lib, lib_integrated")),
            ("+hydra.sweeper.params.seed='interval(0,1)'", ("+hydra.sweeper.params.seed='interval(0,1)'",)),
        ],
    )
    def test_ranges_that_are_no_values(self, refused, argument, expected):
        assert_says(refused("-m", argument), *expected)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--config-name", "confg"], ("--config-name confg", "expected config")),
            (["--config-dir", "nowhere", "model=mine"], ("nowhere", "not found")),
            (["--config-dir", "broken", "model=mine"], ("mine.yaml, line 2", "no YAML")),
            (["--config-dir", "added", "model=mine", "model.wdth=3"], ("model.wdth", "did you mean model.width?")),
            (["method=random", "+method.sed=1"], ("method.sed", "did you mean method.seed?")),
            (["output_directory="], ("output_directory=: expected a text",)),
        ],
    )
    def test_folders_files_and_keys_of_one_s_own(self, refused, tmp_path, arguments, expected):
        for folder, text in (("broken", 'kind: mine\n{"a"'), ("added", "kind: mine\nfactory: my:make\nwidth: 3\n")):
            (tmp_path / folder / "model").mkdir(parents=True)
            (tmp_path / folder / "model" / "mine.yaml").write_text(text)
        line = refused(*arguments)
        assert_says(line, *expected)
        assert "model=mine:" not in line

    def test_a_launcher_that_is_not_installed(self, refused):
        assert_says(refused("-m", "hydra/launcher=jobli", "seed=0,1"), "hydra/launcher=jobli", "expected one of basic")


class TestProcess:
    def test_bad_input_ends_with_status_2_and_one_line(self, tmp_path):
        done = command(tmp_path, "-m", "seed=0,1", "model.modulus=113,1")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: model.modulus=1: expected greater than or equal to 2\n"
        assert files_below(tmp_path) == set()

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (signal.SIGINT, "interrupted"),
            (signal.SIGTERM, "asked to end (SIGTERM)"),
            (signal.SIGHUP, "its terminal was closed (SIGHUP)"),
        ],
    )
    def test_an_interrupted_run_says_so_and_leaves_no_half_stage(self, tmp_path, sent, reason):
        arguments = (sys.executable, "-m", "experiments.run", "model.training.max_steps=1000000", "model.modulus=7")
        # A job in the background of a script is started with interrupts ignored, which its children inherit.
        heeding_interrupts = partial(signal.signal, sent, signal.SIG_DFL)
        with subprocess.Popen(
            arguments,
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heeding_interrupts,  # noqa: PLW1509 - this process has no other threads
        ) as process:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("outputs/cache/model/*.lock")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.2)
            process.send_signal(sent)
            _, err = process.communicate(timeout=60)
        # An interrupt within exec() of a text, as imports have it, makes Python end by SIGINT: 130 for a shell as well.
        assert process.returncode in (128 + sent, -signal.SIGINT), err
        assert err.splitlines() == [f"{reason}: finished stages are kept and found again"]
        (status,) = tmp_path.rglob("status.json")
        assert (read_json(status)["status"], read_json(status)["reason"]) == ("interrupted", reason)
        assert [path.suffix for path in (tmp_path / "outputs/cache/model").iterdir()] == [".lock"]


class TestHelp:
    @pytest.mark.parametrize(
        "arguments", [("--help",), ("--cfg", "job"), ("--info", "defaults-tree"), ("-sc", "install=bash")]
    )
    def test_answers_within_three_seconds_and_leaves_nothing(self, tmp_path, arguments):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = command(tmp_path, *arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, so that a busy machine fails no test.
        assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 3
        assert (done.returncode, done.stderr) == (0, "")
        assert files_below(tmp_path) == set()
        for part in HELP[arguments[-1]]:
            assert part in done.stdout

    def test_the_composed_configuration_is_printed_as_yaml(self, tmp_path):
        done = command(tmp_path, "--cfg", "job", "method=pca", "model.modulus=7", "seed=3")
        composed = yaml.safe_load(done.stdout)
        assert (composed["method"], composed["model"]["modulus"], composed["seed"]) == ({"name": "pca"}, 7, 3)
        # The configuration that is printed is one that would be run.
        assert composed.keys() == type(config_of()).model_fields.keys()

    def test_completion_knows_the_methods(self, tmp_path):
        done = command(tmp_path, "-sc", "query=bash", COMP_LINE="python experiments/run.py seed=1 method=")
        options = {f"method={path.stem}" for path in (CONFIG_DIRECTORY / "method").glob("*.yaml")}
        assert set(done.stdout.split()) == options


KEYS = ("model:", "modulus: 113", "method:", "name: lib", "analysis:", "tolerances:", "tracking:", "seed: 0", "device:")
HELP = {
    "--help": (
        *KEYS,
        "modular_addition, pretrained_transformer, small_transformer",
        "method: file, gradient_pca, ica, jacobian_svd, lib,",
        "cifar10_mlp, demo",
        "experiments.report",
        "--cfg job",
    ),
    "job": KEYS,
    "defaults-tree": ("model: modular_addition", "method: lib", "analysis: default", "tracking: wandb"),
    "install=bash": ("complete",),
}
