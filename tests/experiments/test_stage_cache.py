"""A finished stage is found again by whatever depends on the same content; a half or damaged one never is."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import torch
from running import MID, OUTPUT, PRE, QUICK, clean_environment, command, files_below, reused, run_here

from experiments.pipeline.cache import StageCache
from experiments.pipeline.cache_entry import StageResult
from models import content_hashes
from models.content_hashes import file_hash, source_hash, stage_key

CPU = torch.device("cpu")
RESULT = StageResult(
    {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(True)},
    {"text": "Λ", "list": [1, 2.5]},
    {"vocabulary": '["Λ"]'},
)


def not_called(_) -> StageResult:
    pytest.fail("computed although it is finished")


class TestFinish:
    @pytest.fixture
    def stages(self, tmp_path):
        return StageCache(tmp_path / "cache", CPU)

    def test_a_finished_stage_is_read_and_not_computed(self, stages):
        first = stages.finish("stage", "key", lambda _: RESULT)
        second = stages.finish("stage", "key", not_called)
        assert (first.reused, second.reused) == (False, True)
        assert first.key == second.key == "key"
        assert (second.result.values, second.result.header) == (RESULT.values, RESULT.header)
        assert second.result.tensors.keys() == RESULT.tensors.keys()
        for name, tensor in RESULT.tensors.items():
            assert torch.equal(second.result.tensors[name], tensor)
        # Seconds and memory are those of the computation, not of reading.
        assert second.resources == first.resources
        assert first.resources.seconds > 0

    def test_what_was_computed_and_what_is_read_are_the_same_in_memory(self, stages):
        """A sum runs over a tensor in memory order: another layout is another last digit."""
        first = stages.finish("stage", "key", lambda _: RESULT).result.tensors
        second = stages.finish("stage", "key", not_called).result.tensors
        assert {name: tensor.stride() for name, tensor in first.items()} == {
            name: tensor.stride() for name, tensor in second.items()
        }

    def test_stages_and_keys_are_apart(self, stages):
        for stage, key, value in (("one", "key", 1), ("one", "other", 2), ("two", "key", 3)):
            stages.finish(stage, key, lambda _, value=value: StageResult(values={"value": value}))
        found = [
            stages.finish(stage, key, not_called).result.values["value"]
            for stage, key in (("one", "key"), ("one", "other"), ("two", "key"))
        ]
        assert found == [1, 2, 3]

    @pytest.mark.parametrize("error", [RuntimeError("no luck"), KeyboardInterrupt()])
    def test_a_computation_that_fails_leaves_nothing(self, stages, error):
        def fail(_) -> StageResult:
            raise error

        with pytest.raises(type(error)):
            stages.finish("stage", "key", fail)
        assert files_below(stages.directory) == {"stage", "stage/key.lock"}
        assert stages.finish("stage", "key", lambda _: RESULT).reused is False

    def test_a_result_that_cannot_be_written_leaves_no_entry(self, stages):
        with pytest.raises(TypeError):
            stages.finish("stage", "key", lambda _: StageResult(values={"no json": object()}))
        assert not (stages.directory / "stage" / "key").exists()
        assert stages.finish("stage", "key", lambda _: RESULT).reused is False
        assert stages.finish("stage", "key", not_called).reused is True

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "values.json").unlink(),
            lambda folder: (folder / "tensors.safetensors").unlink(),
            lambda folder: (folder / "values.json").write_text('{"values": {"te'),
            lambda folder: (folder / "values.json").write_text("[]"),
            lambda folder: (folder / "values.json").write_text("{}"),
            lambda folder: (folder / "values.json").write_bytes(b"\xff\xfe"),
            lambda folder: (folder / "tensors.safetensors").write_bytes(b""),
            lambda folder: (folder / "tensors.safetensors").write_bytes(
                (folder / "tensors.safetensors").read_bytes()[:-4]
            ),
        ],
        ids=[
            "no values",
            "no tensors",
            "cut values",
            "other values",
            "empty values",
            "no text",
            "empty",
            "cut tensors",
        ],
    )
    def test_a_damaged_entry_is_computed_again_and_mended(self, stages, damage):
        stages.finish("stage", "key", lambda _: RESULT)
        damage(stages.directory / "stage" / "key")
        again = stages.finish("stage", "key", lambda _: RESULT)
        assert again.reused is False
        assert stages.finish("stage", "key", not_called).result.values == RESULT.values


COMPUTE_SLOWLY = """
import sys, time
from pathlib import Path
import torch
from experiments.pipeline.cache import StageCache
from experiments.pipeline.cache_entry import StageResult

folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

def compute(advance):
    (folder / "started").touch()
    time.sleep(seconds)
    return StageResult({}, {"by": "the other process"})

StageCache(folder / "cache", torch.device("cpu")).finish("stage", "key", compute)
"""


class TestTwoProcesses:
    def start_other(self, folder: Path, seconds: float) -> subprocess.Popen:
        other = subprocess.Popen(
            [sys.executable, "-c", COMPUTE_SLOWLY, str(folder), str(seconds)], env=clean_environment()
        )
        deadline = time.monotonic() + 120
        while not (folder / "started").exists():
            assert other.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return other

    def test_the_second_waits_for_the_first_and_computes_nothing(self, tmp_path):
        with self.start_other(tmp_path, 0.5) as other:
            found = StageCache(tmp_path / "cache", CPU).finish("stage", "key", not_called)
            assert other.wait(timeout=60) == 0
        assert found.reused is True
        assert found.result.values == {"by": "the other process"}

    def test_a_process_that_was_killed_leaves_nothing_to_trust_and_nothing_to_wait_for(self, tmp_path):
        with self.start_other(tmp_path, 600) as other:
            other.send_signal(signal.SIGKILL)
            other.wait(timeout=60)
        assert StageCache(tmp_path / "cache", CPU).finish("stage", "key", lambda _: RESULT).reused is False


class TestKeys:
    def test_a_key_is_a_hash_of_content_in_any_order(self):
        key = stage_key({"a": 1, "b": [1, 2]}, ("libcore",))
        assert key == stage_key({"b": [1, 2], "a": 1}, ("libcore",))
        others = [
            stage_key({"a": 1, "b": [2, 1]}, ("libcore",)),
            stage_key({"a": 1.5, "b": [1, 2]}, ("libcore",)),
            stage_key({"a": 1, "b": [1, 2], "c": None}, ("libcore",)),
            stage_key({"a": 1, "b": [1, 2]}, ("libcore", "models")),
            stage_key({"a": 1, "b": [1, 2]}, ("libcore.principal_components",)),
        ]
        assert len({key, *others}) == 6

    def test_another_version_of_torch_makes_other_keys(self, monkeypatch):
        before = stage_key({"a": 1}, ("libcore",))
        version = metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: "0.1" if name == "torch" else version(name))
        assert stage_key({"a": 1}, ("libcore",)) != before

    def test_a_change_of_the_code_is_a_change_of_its_hash(self, tmp_path, monkeypatch):
        monkeypatch.setattr(content_hashes, "PROJECT", tmp_path)
        package = tmp_path / "hashed_package"
        (package / "inner").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "inner" / "code.py").write_text("a = 1\n")
        hashes = []
        for change in (
            lambda: None,
            lambda: (package / "inner" / "code.py").write_text("a = 2\n"),
            lambda: (package / "inner" / "code.py").rename(package / "inner" / "other.py"),
            (package / "more.py").touch,
        ):
            change()
            hashes.append(source_hash.__wrapped__("hashed_package"))
        assert len(set(hashes)) == 4
        (package / "notes.txt").write_text("no code")
        assert source_hash.__wrapped__("hashed_package") == hashes[-1]

    def test_a_module_is_hashed_alone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(content_hashes, "PROJECT", tmp_path)
        (tmp_path / "package").mkdir()
        for name in ("one", "two"):
            (tmp_path / "package" / f"{name}.py").write_text("a = 1\n")
        of_one, of_all = (source_hash.__wrapped__(name) for name in ("package.one", "package"))
        (tmp_path / "package" / "two.py").write_text("a = 2\n")
        assert source_hash.__wrapped__("package.one") == of_one
        assert source_hash.__wrapped__("package") != of_all
        with pytest.raises(FileNotFoundError):
            source_hash.__wrapped__("package.three")

    def test_the_project_s_modules_are_found_where_folders_of_their_names_are(self, tmp_path):
        """A user's own `models/` or `experiments/` in the folder that a run is started in changes no key."""
        for name in ("models", "experiments", "libcore"):
            (tmp_path / name).mkdir()
        code = "from models.content_hashes import source_hash as h; print(h('models'), h('libcore'))"
        done = command(tmp_path, program=("-c", code))
        assert done.stdout.split() == [source_hash("models"), source_hash("libcore")], done.stderr

    def test_a_file_s_hash_is_that_of_its_content(self, tmp_path):
        for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
            (tmp_path / name).write_bytes(content)
        a, b, c = (file_hash(tmp_path / name) for name in "abc")
        assert a == b != c


@cache
def finished_stages(base: Path) -> Path:
    """A cache that holds the stages of the quick run and no others."""
    run_here(base / "finished_stages", "quick", *QUICK)
    return base / "finished_stages" / "cache"


class TestStagesOfARun:
    """What a change of the configuration makes anew: the stages that depend on it, and no others."""

    STAGES = ("model", "statistics", "basis", "identification", "edges", "ablation", "names")

    @pytest.mark.parametrize(
        ("overrides", "first_new"),
        [
            (["seed=11"], "model"),
            (["model.d_mlp=24"], "model"),
            (["model.split_seed=1"], "model"),
            (["model.training.weight_decay=0.5"], "model"),
            (["analysis.n_examples=30"], "statistics"),
            ([f"analysis.node_layers=[{PRE},{MID},{OUTPUT}]"], "statistics"),
            (["dtype=float32"], "statistics"),
            (["method=pca"], "basis"),
            (["analysis.truncation=1e-4"], "basis"),
            (["analysis.truncation_rule=absolute"], "basis"),
            (["analysis.estimator=exact"], "basis"),
            (["analysis.integration=trapezoidal"], "edges"),
            (["analysis.integration=trapezoidal", "analysis.n_points=3"], "edges"),
            (["analysis.tolerances=[0.2]"], "ablation"),
            (["analysis.ablation_dtype=float64"], "ablation"),
            (["analysis.communities.resolution=0.5"], "names"),
            (["analysis.memory_budget=64MB"], None),
            (["tracking.project=another"], None),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_only_what_depends_on_it(self, tmp_path_factory, tmp_path, overrides, first_new):
        shutil.copytree(finished_stages(tmp_path_factory.getbasetemp()), tmp_path / "cache")
        run = run_here(tmp_path, "changed", *QUICK, *overrides)
        n_found = self.STAGES.index(first_new) if first_new else len(self.STAGES)
        found = reused(run)
        # Scores depend on the model alone, and on the precision.
        assert found.pop("score") == (first_new != "model" and "ablation_dtype" not in overrides[0])
        assert found == {stage: index < n_found for index, stage in enumerate(self.STAGES)}
