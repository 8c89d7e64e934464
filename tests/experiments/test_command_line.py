"""What the user gets wrong is refused in one line before anything starts; help answers at once."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hydra._internal.utils import get_args_parser
from running import MID, NODE_LAYERS, OUTPUT, PRE, TOY, clean_environment, command, files_below, read_json
from safetensors.torch import save_file

from experiments import run as run_module
from experiments.run import check_before_start, main
from experiments.validation import CONFIG_DIRECTORY, check_command_line
from libcore.chain import Chain
from libcore.sections import ClosedForm, FunctionSection
from models.modular_addition import model as modular_addition
from models.modular_addition.transformer import Architecture, chain_of

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Refused:
    """Calls the command, which must refuse its arguments before any run starts; returns the one line it says."""
    monkeypatch.chdir(tmp_path)
    # Without a single place where a W&B account could be logged in.
    for variable in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(run_module, "run", lambda: pytest.fail("a run was started"))

    def refuse(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        before = files_below(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert out == ""
        assert files_below(tmp_path) == before
        (line,) = err.splitlines()
        return line

    return refuse


def assert_says(line: str, *expected: str) -> None:
    missing = [part for part in expected if part not in line]
    assert not missing, f"{missing} not in {line!r}"


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            ("model.modulsu=7", ("model.modulsu", "did you mean model.modulus?")),
            ("sed=1", ("sed", "did you mean seed?")),
            ("analysis.tolerance=[0.1]", ("analysis.tolerance", "did you mean analysis.tolerances?")),
            ("model.training.lr=1", ("model.training.lr", "--help")),
            ("+model.modulsu=7", ("model.modulsu", "did you mean model.modulus?")),
            ("+surprise=1", ("surprise", "--help")),
            ("methd=lib", ("methd", "did you mean method?")),
            ("method=libb", ("method=libb", "did you mean lib?", "lib, pca")),
            ("model=modular", ("model=modular", "did you mean modular_addition?")),
            ("experiment=dmo", ("experiment=dmo", "did you mean demo?")),
            ("analysis=quick", ("analysis=quick", "expected one of default")),
            ("analysis.node_layers=[blocks.0.resid_pre,output]", ("blocks.0.resid_pre", f"did you mean {PRE}?")),
        ],
    )
    def test_the_nearest_name_is_suggested(self, refused, argument, expected):
        assert_says(refused(argument), *expected)

    @pytest.mark.parametrize("argument", ["~seed", "~method", "~tracking.mode", "~model.modulus", "seed=???"])
    def test_a_key_that_was_taken_away_is_named(self, refused, argument):
        assert_says(refused(argument), argument.strip("~?="))

    @pytest.mark.parametrize("argument", ["seed", "=1", "seed=[1"])
    def test_what_is_no_override_is_repeated(self, refused, argument):
        assert_says(refused(argument), argument)


class TestValues:
    @pytest.mark.parametrize(
        ("argument", "expected"),
        [
            ("model.modulus=1", "greater than or equal to 2"),
            ("model.modulus=seven", "integer"),
            ("model.modulus=7.5", "integer"),
            ("model.n_heads=0", "greater than or equal to 1"),
            ("model.train_fraction=1", "less than 1"),
            ("model.training.learning_rate=inf", "finite"),
            ("model.training.target_accuracy=nan", "1"),
            ("seed=-1", "greater than or equal to 0"),
            ("seed=1.5", "integer"),
            ("dtype=float16", "float64"),
            ("device=gpu", "auto, cpu, cuda or cuda:N"),
            ("analysis.stages=basis", "list"),
            ("analysis.tolerances=0.1", "list"),
            ("analysis.integration=gauss-legendre", "did you mean gauss_legendre?"),
            ("analysis.n_points=0", "greater than or equal to 1"),
            ("analysis.truncation=-1", "greater than or equal to 0"),
            ("analysis.memory_budget=12", "at least 1MB"),
            ("analysis.memory_budget=lots", "such as 128MB"),
            ("analysis.memory_budget=1.5", "expected"),
            ("tracking.mode=ofline", "did you mean offline?"),
            ("tracking.project=", "at least 1 character"),
        ],
    )
    def test_key_value_and_what_would_be_right_are_named(self, refused, argument, expected):
        assert_says(refused(argument), f"{argument}: ", expected)

    def test_an_entry_of_a_list_is_named_by_its_place(self, refused):
        line = refused("analysis.tolerances=[0.01,-0.1]")
        assert_says(line, "analysis.tolerances[1]=-0.1", "greater than or equal to 0")

    def test_an_option_s_name_set_by_hand(self, refused):
        assert_says(refused("method.name=svd"), "method", "svd", "'lib'", "'pca'")
        assert_says(refused("method=null"), "method")

    def test_an_interpolation_of_nothing(self, refused):
        assert_says(refused("tracking.group=${surprise}"), "surprise")

    def test_a_split_that_would_be_empty(self, refused):
        assert_says(refused("model.modulus=3", "model.train_fraction=0.1"), "train_fraction=0.1", "9 pairs")

    def test_more_examples_than_the_training_split_has(self, refused):
        """39 of the toy's 49 pairs are for training."""
        assert_says(refused(*TOY, "analysis.n_examples=40"), "analysis.n_examples=40", "39")


class TestCombinations:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["method.jacobian=path"], ("method.jacobian=path", "analysis.integration=gradient", "trapezoidal")),
            (["analysis.n_points=5"], ("n_points=5", "integration=gradient", "trapezoidal")),
            (["analysis.stages=[edges]"], ("stages=['edges']", "expected basis")),
            (["analysis.stages=[ablation,edges]"], ("stages=", "expected basis")),
            (
                ["analysis.communities.edge_weight=log", "analysis.stages=[basis,edges]"],
                ("communities.edge_weight=log", "ablation"),
            ),
            (["method=pca", "method.jacobian=path"], ("method.jacobian",)),
            (["method.name=pca"], ("method.jacobian",)),
            (["analysis.truncation=2"], ("truncation=2", "under 1")),
        ],
    )
    def test_what_makes_no_sense_together(self, refused, arguments, expected):
        assert_says(refused(*arguments), *expected)

    @pytest.mark.parametrize("layers", [[OUTPUT, PRE], [PRE, PRE], [PRE, OUTPUT, MID]])
    def test_node_layers_out_of_order(self, refused, layers):
        assert_says(refused(f"analysis.node_layers=[{','.join(layers)}]"), *layers, "order", ", ".join(NODE_LAYERS))

    def test_a_single_node_layer(self, refused):
        assert_says(refused("analysis.node_layers=[output]"), "analysis.node_layers=['output']", "at least 2")

    def test_a_closed_form_that_there_is_not(self, refused, monkeypatch):
        monkeypatch.setattr(modular_addition, "chain_of", chain_that_begins_with_an_unknown_section)
        line = refused(*TOY, "analysis.estimator=closed_form")
        assert_says(line, "analysis.estimator=closed_form", "FunctionSection", "auto", "exact")


def chain_that_begins_with_an_unknown_section(*arguments) -> Chain:
    chain = chain_of(*arguments)
    first = FunctionSection(chain.sections[0])
    assert not isinstance(first, ClosedForm)
    return replace(chain, sections=(first, *chain.sections[1:]))


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
            (["method=glob(*)", "seed=-1"], ("seed=-1",)),
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
            (["-m", "experiment=modular_addition", "seed=range(1,3)"], {(m, s) for m in ("lib", "pca") for s in (1, 2)}),
        ],
    )
    def test_the_command_line_replaces_what_an_experiment_sweeps_over(self, monkeypatch, arguments, expected):
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        configs = check_before_start(arguments)
        assert sorted((config.method.name, config.seed) for config in configs) == sorted(expected)

    def test_flags_may_stand_behind_the_overrides(self, monkeypatch):
        """What is added to the arguments for Hydra must be where Hydra's parser finds it."""
        arguments = ["experiment=demo", "method=pca", "-m"]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        assert [config.method.name for config in check_before_start(arguments)] == ["pca"]
        parsed = get_args_parser().parse_args(sys.argv[1:])
        assert parsed.overrides[:2] == arguments[:2]


class TestPlaces:
    def test_an_output_directory_below_a_file(self, refused, tmp_path):
        (tmp_path / "file").write_text("here")
        assert_says(refused("output_directory=file/below"), "file/below", str(tmp_path / "file"), "not a directory")

    def test_a_run_s_directory_below_a_file(self, refused, tmp_path):
        (tmp_path / "file").write_text("here")
        assert_says(refused("hydra.run.dir=file/below"), "file/below", "not a directory")

    def test_an_output_directory_below_a_file_while_the_run_s_directory_is_elsewhere(self, refused, tmp_path):
        """The cache of finished stages lies in the output directory wherever the run's own directory is."""
        (tmp_path / "file").write_text("here")
        assert_says(refused("hydra.run.dir=good", "output_directory=file/below"), "file/below", "not a directory")

    def test_a_sweep_s_directory_below_a_file(self, refused, tmp_path):
        (tmp_path / "file").write_text("here")
        assert_says(refused("-m", "seed=0,1", "hydra.sweep.dir=file/below"), "file/below", "not a directory")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_directory_without_permission(self, refused, tmp_path):
        (tmp_path / "closed").mkdir(mode=0o500)
        assert_says(refused("output_directory=closed/below"), "closed", "permission denied")


class TestDevicesAndAccounts:
    @pytest.mark.parametrize("device", ["cuda:99", "cuda:99999999999"])
    def test_a_device_that_is_not_there(self, refused, device):
        assert_says(refused(f"device={device}"), f"device={device}", "cpu")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
    def test_cuda_without_a_device(self, refused):
        assert_says(refused("device=cuda"), "device=cuda", "0 CUDA devices", "cpu or auto")

    def test_online_tracking_without_an_account(self, refused):
        assert_says(refused("tracking.mode=online"), "tracking.mode=online", "wandb login", "offline")

    def test_online_tracking_with_a_damaged_netrc(self, refused, tmp_path):
        (tmp_path / ".netrc").write_text("machine\n")
        assert_says(refused("tracking.mode=online"), "tracking.mode=online")


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("name", "write", "expected"),
        [
            ("missing.pt", lambda path: None, "no such file"),
            ("folder.pt", Path.mkdir, "file"),
            ("empty.pt", Path.touch, "not readable"),
            ("text.pt", lambda path: path.write_text("these are no weights"), "not readable"),
            ("text.safetensors", lambda path: path.write_text("these are no weights"), "not readable"),
            ("module.pt", lambda path: torch.save(torch.nn.Linear(2, 2), path), "not readable"),
            ("object.pt", lambda path: path.write_bytes(pickle.dumps(Path("x"))), "not readable"),
            ("old_object.pt", lambda path: path.write_bytes(pickle.dumps(Path("x"), protocol=2)), "not readable"),
            ("tensor.pt", lambda path: torch.save(torch.zeros(3), path), "holds Tensor; expected named tensors"),
            ("nested.pt", lambda path: torch.save({"model": {"a": torch.zeros(3)}}, path), "expected named tensors"),
            ("numbered.pt", lambda path: torch.save({0: torch.zeros(3)}, path), "expected named tensors"),
            ("no_weights.pt", lambda path: torch.save({}, path), "weight embed.W_E is missing; expected shape (8, 16)"),
        ],
    )
    def test_a_file_that_holds_no_weights(self, refused, tmp_path, name, write, expected):
        write(tmp_path / name)
        assert_says(refused(*TOY, f"model.checkpoint={name}"), f"model.checkpoint={name}", expected)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                lambda weights: weights | {"embed.W_E": torch.zeros(9, 16)},
                ("weight embed.W_E has another shape", "expected (8, 16)", "found (9, 16)"),
            ),
            (
                lambda weights: {name: weight for name, weight in weights.items() if name != "blocks.0.mlp.b_in"},
                ("weight blocks.0.mlp.b_in is missing", "expected shape (32,)"),
            ),
            (
                lambda weights: weights | {"blocks.1.mlp.b_in": torch.zeros(32)},
                ("weight blocks.1.mlp.b_in does not belong to this model",),
            ),
        ],
    )
    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    def test_the_first_weight_that_does_not_fit_is_named(self, refused, tmp_path, change, expected, suffix):
        weights = change({name: torch.zeros(shape) for name, shape in toy_shapes().items()})
        path = tmp_path / f"weights.{suffix}"
        torch.save(weights, path) if suffix == "pt" else save_file(weights, path)
        assert_says(refused(*TOY, f"model.checkpoint={path}"), f"model.checkpoint={path}", *expected)

    def test_no_code_of_a_pickle_is_run(self, refused, tmp_path):
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(tmp_path / "traces"), protocol=2))
        assert_says(refused(*TOY, "model.checkpoint=evil.pt"), "model.checkpoint=evil.pt")


def toy_shapes() -> dict[str, tuple[int, ...]]:
    return Architecture(modulus=7, d_model=16, n_heads=2, d_head=8, d_mlp=32).weight_shapes()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestProcess:
    """The command as the shell sees it; everything above is the same code called directly."""

    def test_bad_input_ends_with_status_2_and_one_line(self, tmp_path):
        done = command(tmp_path, "-m", "seed=0,1", "model.modulus=113,1")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "error: model.modulus=1: expected greater than or equal to 2\n"
        assert files_below(tmp_path) == set()

    def test_an_interrupted_run_says_so_and_leaves_no_half_stage(self, tmp_path):
        arguments = (sys.executable, "-m", "experiments.run", "model.training.max_steps=1000000", "model.modulus=7")
        with subprocess.Popen(
            arguments, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            deadline = time.monotonic() + 120
            while not list(tmp_path.glob("outputs/cache/model/*.lock")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.splitlines() == ["interrupted: finished stages are kept and found again"]
        (status,) = tmp_path.rglob("status.json")
        assert (read_json(status)["status"], read_json(status)["reason"]) == ("failed", "interrupted")
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
        assert composed.keys() == type(check_command_line([], multirun=False)[0]).model_fields.keys()

    def test_completion_knows_the_methods(self, tmp_path):
        done = command(tmp_path, "-sc", "query=bash", COMP_LINE="python experiments/run.py seed=1 method=")
        options = {f"method={path.stem}" for path in (CONFIG_DIRECTORY / "method").glob("*.yaml")}
        assert set(done.stdout.split()) == options


KEYS = ("model:", "modulus: 113", "method:", "name: lib", "analysis:", "tolerances:", "tracking:", "seed: 0", "device:")
HELP = {
    "--help": (*KEYS, "method: lib, pca", "experiment: demo", "experiments.report", "--cfg job"),
    "job": KEYS,
    "defaults-tree": ("model: modular_addition", "method: lib", "analysis: default", "tracking: wandb"),
    "install=bash": ("complete",),
}
