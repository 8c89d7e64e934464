"""`python -m experiments.cache`: what is kept and who uses it; nothing in use goes, and nothing of anybody else's."""

from __future__ import annotations

import os
import shutil
import time
from functools import cache as once
from pathlib import Path

import pytest
from filelock import FileLock
from running import QUICK, assert_says, exit_status, files_below, read_json

from experiments import cache
from experiments.pipeline.cache_contents import contents
from models.checked_tensors import write_checked
from models.in_use import used

STAGES = ("ablation", "basis", "edges", "identification", "model", "names", "score", "statistics")


@once
def two_runs(base: Path) -> Path:
    """LIB and PCA of one model, below `outputs`; not to be changed."""
    folder = base / "cache_command"
    folder.mkdir()
    for method in ("lib", "pca"):
        assert exit_status(folder, *QUICK, f"method={method}", f"hydra.run.dir=outputs/{method}") == 0
    return folder / "outputs"


@pytest.fixture
def outputs(tmp_path_factory, tmp_path) -> Path:
    return shutil.copytree(two_runs(tmp_path_factory.getbasetemp()), tmp_path / "outputs")


@pytest.fixture
def call(outputs, capsys):
    def main(*arguments: str) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as ended:
            cache.main([arguments[0], "--output-directory", str(outputs), *arguments[1:]])
        assert isinstance(ended.value.code, int)
        out, err = capsys.readouterr()
        return ended.value.code, [*out.splitlines(), *err.splitlines()]

    return main


def stages_of(outputs: Path, kind: str = "stage") -> list[str]:
    return [kept.name for kept in contents(outputs / "cache") if kept.kind == kind]


def entry(outputs: Path, stage: str, run: str = "lib") -> Path:
    (name,) = (name for name in read_json(outputs / run / "status.json")["cache"] if name.startswith(f"{stage}/"))
    return outputs / "cache" / name


def test_a_run_says_what_of_the_cache_it_used(outputs):
    listed = [read_json(outputs / run / "status.json")["cache"] for run in ("lib", "pca")]
    assert [sorted(name.split("/")[0] for name in names) for names in listed] == [list(STAGES)] * 2
    assert set(listed[0]) | set(listed[1]) == set(stages_of(outputs))
    assert {name.split("/")[0] for name in set(listed[0]) & set(listed[1])} == {"model", "score", "statistics"}


def test_list(call, outputs):
    status, lines = call("list")
    text = "\n".join(lines)
    assert status == 0
    for name in stages_of(outputs):
        (line,) = (line for line in lines if name in line)
        assert_says(line, "stage", "minutes", "lib and 1 more" if name.startswith("model/") else "")
    assert f"{len(stages_of(outputs))} entries, " in text


def test_an_entry_of_an_older_version_is_told(call, outputs):
    (entry(outputs, "edges") / "manifest.json").unlink()
    assert any("without a manifest, as older versions wrote it" in line for line in call("list")[1])


def test_verify(call, outputs):
    assert call("verify") == (0, [f"{len(stages_of(outputs))} whole, 0 not; a run computes those again"])
    file = entry(outputs, "basis") / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    status, lines = call("verify")
    assert status == 1
    assert lines[0] == f"basis/{file.parent.name}: tensors.safetensors is not what was written"


class TestPrune:
    def test_nothing_goes_that_is_not_asked_for(self, call, outputs):
        before = files_below(outputs)
        status, (line,) = call("prune")
        assert status == 2
        assert_says(line, "error: prune: expected --unused, --older-than DAYS, or both")
        assert call("prune", "--unused")[1] == ["0 B removed"]
        assert call("prune", "--older-than", "1")[1] == ["0 B removed"]
        assert call("prune", "--older-than", "-1")[0] == 2
        assert files_below(outputs) == before

    def test_what_no_run_uses_goes(self, call, outputs):
        of_pca_alone = set(stages_of(outputs)) - set(read_json(outputs / "lib" / "status.json")["cache"])
        shutil.rmtree(outputs / "pca")
        before = files_below(outputs)
        _, lines = call("prune", "--unused", "--dry-run")
        assert files_below(outputs) == before
        assert {line.split(":")[0] for line in lines[:-1]} == of_pca_alone
        _, lines = call("prune", "--unused")
        assert set(stages_of(outputs)) == set(read_json(outputs / "lib" / "status.json")["cache"])
        assert all(line.endswith(": removed") for line in lines[:-1])
        assert call("verify")[0] == 0

    def test_runs_elsewhere_count_where_they_are_named(self, call, outputs, tmp_path):
        shutil.move(outputs / "pca", tmp_path / "elsewhere" / "pca")
        assert call("prune", "--unused", "--dry-run", "--runs", str(tmp_path / "elsewhere"))[1] == ["0 B to be removed"]
        assert len(call("prune", "--unused", "--dry-run")[1]) > 1
        assert call("prune", "--unused", "--runs", str(tmp_path / "nowhere"))[0] == 2

    def test_what_is_old_goes(self, call, outputs):
        ago = time.time() - 10 * 24 * 3600
        os.utime(entry(outputs, "edges") / "manifest.json", (ago, ago))
        assert call("prune", "--unused", "--older-than", "9")[1] == ["0 B removed"]
        _, lines = call("prune", "--older-than", "9")
        assert_says(lines[0], f"edges/{entry(outputs, 'edges').name}", "10.0 days: removed")
        assert not entry(outputs, "edges").exists()

    def test_what_a_run_uses_or_computes_stays(self, call, outputs):
        with used(entry(outputs, "edges")), FileLock(entry(outputs, "basis").with_suffix(".lock")):
            _, lines = call("prune", "--older-than", "0")
        kept = {line.split(":")[0]: line.split(": ", 2)[2] for line in lines[:-1] if not line.endswith("removed")}
        assert kept == {
            f"edges/{entry(outputs, 'edges').name}": "kept: a run uses it",
            f"basis/{entry(outputs, 'basis').name}": "kept: a run is computing it",
        }
        assert {name.split("/")[0] for name in stages_of(outputs)} == {"edges", "basis"}

    def test_foreign_files_stay(self, call, outputs, tmp_path):
        stored = outputs / "cache"
        mine = tmp_path / "mine" / "0123456789abcdef0123"
        mine.mkdir(parents=True)
        precious = [
            stored / "notes.txt",
            stored / "model" / "weights.safetensors",
            stored / "model" / "folder" / "tensors.safetensors",
            entry(outputs, "edges") / "notes.txt",
            mine / "tensors.safetensors",
        ]
        for path in precious:
            path.parent.mkdir(exist_ok=True)
            path.write_text("precious")
        (stored / "linked").symlink_to(tmp_path / "mine")
        (stored / "model" / mine.name).symlink_to(mine)
        _, lines = call("prune", "--older-than", "0")
        assert any("kept: holds files that are not the cache's" in line for line in lines)
        assert [path.read_text() for path in precious] == ["precious"] * len(precious)
        assert (entry(outputs, "edges") / "tensors.safetensors").is_file()
        assert set(stages_of(outputs)) == {f"edges/{entry(outputs, 'edges').name}"}
        assert {"notes.txt", "linked"} <= set(stages_of(outputs, "foreign"))

    def test_what_was_left_by_the_killed_goes_and_an_interrupted_training_by_age(self, call, outputs):
        key = "0123456789abcdef0123"
        training, temporary = (
            outputs / "cache" / "model" / name for name in (f"{key}.training.safetensors", f".{key}.12.tmp")
        )
        write_checked(training, {}, {})
        temporary.mkdir()
        (temporary / "tensors.safetensors").write_text("half")
        call("prune", "--unused")
        assert (training.exists(), temporary.exists()) == (True, False)
        with FileLock(training.with_name(f"{key}.lock")):
            call("prune", "--older-than", "0")
        assert training.exists()
        call("prune", "--older-than", "0")
        assert not training.exists()

    def test_kept_files_stay_while_any_run_goes_on(self, call, outputs):
        kept = outputs / "cache" / "pretrained" / "0123456789abcdef0123.safetensors"
        write_checked(kept, {}, {})
        with used(outputs / "cache"):
            assert "kept: a run uses it" in call("prune", "--unused")[1][0]
        assert kept.exists()
        call("prune", "--unused")
        assert not kept.exists()


def test_a_folder_without_a_cache(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cache.main(["list", "--output-directory", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
    assert_says(capsys.readouterr().err, "--output-directory", "nowhere: no cache in it")
