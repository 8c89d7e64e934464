"""A report over runs of which some are damaged: each is named with its reason, all others are reported on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import QUICK, read_json, run_here
from safetensors import safe_open
from safetensors.torch import save_file

from experiments.pipeline.json_files import write_json
from experiments.report import main, write_and_print
from experiments.reporting.finished_runs import FinishedRun, UnfinishedRun, read_run

Damage = Callable[[Path], None]
WHOLE = ("status.json", "config.yaml", "metrics.json", "ablations.json", "features.json", "graph.safetensors")
NEEDED = ("status.json", "config.yaml", "metrics.json")
"""A run may lack the others: its stages left them out."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    run = run_here(folder, "healthy", *QUICK)
    write_json(run / "status.json", {"status": "finished", "files": [], "hashes": {"metrics.json": "0"}, "more": 1})
    return run


@pytest.fixture
def damaged(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "damaged"))


def text(content: str) -> Damage:
    return lambda path: path.write_text(content, encoding="utf-8") and None


def data(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content) and None


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_a_pipe(path: Path) -> None:
    """Whoever opens it waits for somebody to write."""
    path.unlink()
    os.mkfifo(path)


def made_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def grown(path: Path) -> None:
    """By a hole of a terabyte."""
    with path.open("r+b") as file:
        file.truncate(2**40)


LAUGHS = "\n".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
"""Of aliases: a few lines of text, 9 to the power of 11 entries."""


def without(key: str) -> Damage:
    return changed(lambda content: content.pop(key))


def changed(change: Callable[[Any], object]) -> Damage:
    """Of a JSON file's content."""

    def damage(path: Path) -> None:
        content = read_json(path)
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return damage


def put(value: object, *keys: str) -> Damage:
    """A value at the path of keys; a key `*` is the first one."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[next(iter(content)) if key == "*" else key]
        content[next(iter(content)) if keys[-1] == "*" else keys[-1]] = value

    return changed(change)


ANY_FILE: dict[str, Damage] = {
    "cut short": cut_short,
    "empty": data(b""),
    "a folder": made_a_folder,
    "[]": text("[]"),
    "{}": text("{}"),
    "null": text("null"),
    "a number": text("3"),
    "a text": text('"finished"'),
    "zeros": data(bytes(64)),
    "no UTF-8": data(b'{"a": "\xff\xfe"}'),
    "deep": text("[" * 200_000),
    "a pipe": made_a_pipe,
    "a device": made_a_device,
    "larger than memory": grown,
    "half a sign": text('{"\\ud800": 1}'),
}
OF_JSON: dict[str, dict[str, Damage]] = {
    "status.json": {
        "of another shape": text('{"status": ["finished"]}'),
        "null status": text('{"status": null}'),
        "list of objects": text('[{"status": "finished"}]'),
    },
    "config.yaml": {
        "no mapping": text("- a\n- b\n"),
        "no yaml": text("model: {"),
        "without model": text("method: {name: lib}\nseed: 0\n"),
        "without method": text("model: {kind: a}\nseed: 0\n"),
        "without seed": text("model: {kind: a}\nmethod: {name: lib}\n"),
        "model is a text": text("model: a\nmethod: {name: lib}\nseed: 0\n"),
        "kind is null": text("model: {kind: null}\nmethod: {name: lib}\nseed: 0\n"),
        "name of the model is a list": text("model: {kind: a, name: [b]}\nmethod: {name: lib}\nseed: 0\n"),
        "method is a text": text("model: {kind: a}\nmethod: lib\nseed: 0\n"),
        "label is a mapping": text("model: {kind: a}\nmethod: {name: lib, label: {a: b}}\nseed: 0\n"),
        "seed is a text": text("model: {kind: a}\nmethod: {name: lib}\nseed: zero\n"),
        "analysis is a list": text("model: {kind: a}\nmethod: {name: lib}\nseed: 0\nanalysis: [1]\n"),
        "half is a number": text("model: {kind: a}\nmethod: {name: lib}\nseed: 0\nanalysis: {half: 2}\n"),
        "a python object": text("model: !!python/object:os.system {}\nmethod: {name: lib}\nseed: 0\n"),
        "two documents": text("model: {kind: a}\n---\nmethod: {name: lib}\n"),
        "aliases of aliases": text(f"a0: &a0 [lol]\n{LAUGHS}\nmodel: {{kind: a}}\nmethod: {{name: lib}}\nseed: 0\n"),
        "a tab": text("model:\n\tkind: a\n"),
    },
    "metrics.json": {
        "NaN": text('{"score/test": NaN}'),
        "infinite": text('{"score/test": 1e999}'),
        "huge": text('{"score/test": 1' + "0" * 400 + "}"),
        "texts": text('{"score/test": "0.5"}'),
        "truth values": text('{"score/test": true}'),
        "nested": text('{"score/test": {"mean": 1}}'),
        "a list of numbers": text("[1, 2]"),
    },
    "ablations.json": {
        "without test_score": without("test_score"),
        "without curves": without("edge_ablation"),
        "without needed": without("nodes_needed"),
        "test_score null": put(None, "test_score"),
        "curves are a list": put([1, 2], "node_ablation"),
        "curve is a list": put([1, 2], "node_ablation", "*"),
        "curve is empty": put({}, "edge_ablation", "*"),
        "kept is no number": put({"all": 0.5}, "edge_ablation", "*"),
        "kept is negative": put({"-1": 0.5}, "edge_ablation", "*"),
        "score is a text": put("0.5", "node_ablation", "*", "*"),
        "needed is a text": put("3", "nodes_needed", "*", "*"),
        "needed is negative": put(-3, "nodes_needed", "*", "*"),
        "needed is a fraction": put(2.5, "edges_needed", "*", "*"),
        "tolerance is no number": put({"tight": 3}, "edges_needed", "*"),
        "a layer less": changed(lambda content: content["nodes_needed"].popitem()),
        "score's name": put({"name": 3, "lower_is_better": True}, "score"),
        "score's direction": put({"name": "accuracy"}, "score"),
    },
    "features.json": {
        "without labels": without("labels"),
        "without communities": without("communities"),
        "labels are a list": put([], "labels"),
        "label is a number": put([1], "labels", "*"),
        "too few labels": changed(lambda content: next(iter(content["labels"].values())).pop()),
        "too many communities": changed(lambda content: next(iter(content["communities"].values())).append(0)),
        "community is a text": put(["0"], "communities", "*"),
        "community is a truth value": put([True], "communities", "*"),
        "another layer's": changed(lambda content: content["labels"].popitem()),
    },
}


def rewritten(change: Callable[[dict[str, torch.Tensor], dict[str, str]], object]) -> Damage:
    """A graph with other tensors or another header."""

    def damage(path: Path) -> None:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata())
        change(tensors, header)
        save_file(tensors, path, header or None)

    return damage


def first(tensors: dict[str, torch.Tensor], kind: str) -> str:
    return next(name for name in sorted(tensors) if name.startswith(f"{kind}/"))


def replaced(kind: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def damage(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        name = first(tensors, kind)
        tensors[name] = change(tensors[name]).contiguous()

    return rewritten(damage)


KINDS = ("to_basis", "from_basis", "importance", "mean", "gram", "edges")
OF_GRAPH: dict[str, Damage] = {
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:40]) and None,
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"0") and None,
    "other tensors": rewritten(lambda tensors, _: (tensors.clear(), tensors.update(weight=torch.ones(2)))),
    "no header": rewritten(lambda _, header: header.clear()),
    "layers are no list": rewritten(lambda _, header: header.update(node_layers='"output"')),
    "layers are no JSON": rewritten(lambda _, header: header.update(node_layers="[output")),
    "no layers": rewritten(lambda _, header: header.update(node_layers="[]")),
    "layers of another model": rewritten(lambda _, header: header.update(node_layers='["layers.9"]')),
    "layers are numbers": rewritten(lambda _, header: header.update(node_layers="[1, 2]")),
    "constant is no list": rewritten(lambda _, header: header.update(constant="3")),
    "counts are a list": rewritten(lambda _, header: header.update(count="[]")),
    "isolated is a number": rewritten(lambda _, header: header.update(isolated="1")),
    **{
        f"without {kind}": rewritten(lambda tensors, _, kind=kind: tensors.pop(first(tensors, kind)))
        for kind in KINDS
        if kind != "edges"
    },
    **{f"{kind} with a row less": replaced(kind, lambda tensor: tensor[:-1]) for kind in KINDS},
    **{f"{kind} as a cube": replaced(kind, lambda tensor: tensor[None, None]) for kind in KINDS},
    **{f"{kind} of whole numbers": replaced(kind, lambda tensor: tensor.int()) for kind in KINDS},
    "edges not finite": replaced("edges", lambda tensor: tensor * torch.nan),
    "edges below zero": replaced("edges", lambda tensor: -tensor - 1),
    "importance not finite": replaced("importance", lambda tensor: tensor + torch.inf),
    "basis without features": replaced("to_basis", lambda tensor: tensor[:, :0]),
}
DAMAGES = [
    *((file, name, damage) for file in WHOLE for name, damage in ANY_FILE.items()),
    *((file, name, damage) for file, of_file in OF_JSON.items() for name, damage in of_file.items()),
    *(("graph.safetensors", name, damage) for name, damage in OF_GRAPH.items()),
]


@pytest.mark.parametrize(("file", "damage"), [(f, d) for f, _, d in DAMAGES], ids=[f"{f}: {n}" for f, n, _ in DAMAGES])
def test_a_damaged_run_is_named_with_a_reason_in_one_line(damaged, file, damage):
    damage(damaged / file)
    found = read_run(damaged)
    assert isinstance(found, UnfinishedRun)
    assert file in found.reason
    assert found.reason.isprintable()
    assert len(found.reason) > len(f"not readable: {file}: ")


@pytest.mark.parametrize("file", WHOLE)
def test_a_file_that_is_missing_is_a_stage_left_out_or_a_damage(damaged, file):
    (damaged / file).unlink()
    found = read_run(damaged)
    if file in NEEDED:
        assert isinstance(found, UnfinishedRun)
        assert found.reason == f"not readable: {file} is missing"
    else:
        assert isinstance(found, FinishedRun)


def test_a_healthy_run_with_keys_of_a_newer_version_is_read(healthy):
    assert isinstance(read_run(healthy), FinishedRun)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"status": "failed", "reason": "a\nb"}, "failed: a b"),
        ({"status": "failed"}, "failed: no reason given"),
        ({"status": "failed", "reason": ["a"]}, "failed: ['a']"),
        ({"status": "interrupted", "reason": "Ctrl-C"}, "interrupted: Ctrl-C"),
        ({"status": "interrupted", "reason": "interrupted"}, "interrupted"),
        ({"status": "running"}, "running, or stopped without a word"),
    ],
)
def test_what_a_status_says(damaged, status, reason):
    write_json(damaged / "status.json", status)
    assert read_run(damaged) == UnfinishedRun(damaged, reason)


class TestTheReportOverAllOfThem:
    @pytest.fixture
    def folder(self, healthy: Path, tmp_path: Path) -> Path:
        """The healthy run, one of each damage, and one whose ablations overflowed everywhere."""
        folder = tmp_path / "runs"
        shutil.copytree(healthy, folder / "healthy")
        for number, (file, _, damage) in enumerate(DAMAGES):
            shutil.copytree(healthy, folder / f"damaged{number}")
            damage(folder / f"damaged{number}" / file)
        overflowed = Path(shutil.copytree(healthy, folder / "overflowed"))
        (overflowed / "config.yaml").write_text(
            (healthy / "config.yaml").read_text().replace("seed: 0\ndevice", "seed: 1\ndevice")
        )
        ablations = read_json(overflowed / "ablations.json")
        for curves in (ablations["node_ablation"], ablations["edge_ablation"]):
            for curve in curves.values():
                curve.update(dict.fromkeys(curve))
        write_json(overflowed / "ablations.json", ablations)
        return folder

    def test_every_run_is_reported_on_or_named(self, folder, tmp_path, capsys):
        main([str(folder), "--out", str(tmp_path / "report"), "--latex"])
        out, err = capsys.readouterr()
        assert err == ""
        markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
        for number in range(len(DAMAGES)):
            for written in (out, markdown, page):
                assert f"{folder}/damaged{number}: not readable: " in written
        assert f"| `{folder}/healthy` | lib | 0 |" in markdown
        assert f"| `{folder}/overflowed` | lib | 1 |" in markdown
        assert "LIB (n = 2)" in markdown

    def test_directories_that_were_never_made_or_are_empty_are_named(self, healthy, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        write_and_print([tmp_path / "never", tmp_path / "empty", healthy], tmp_path / "report")
        lines = capsys.readouterr().out.splitlines()
        assert f"{tmp_path}/never: no such directory: the run never began" in lines
        assert f"{tmp_path}/empty: not readable: status.json is missing" in lines
        assert lines[-1] == f"report: {tmp_path}/report/report.md"

    def test_a_sweep_of_which_nothing_is_left_has_no_report(self, tmp_path, capsys):
        write_and_print([tmp_path / "never"], tmp_path / "report")
        assert capsys.readouterr().out == f"{tmp_path}/never: no such directory: the run never began\n"
        assert not (tmp_path / "report").exists()
