"""Two methods beside each other: what the page embeds of two runs, and what it does in a browser."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
import yaml
from chromium import Page
from graph_page_case import embedded, needs_chromium, next_frame, text
from running import TOY_MODELS, read_json, run_here

from experiments.pages.compare_page import write_compare_page
from experiments.pages.correlations import feature_correlations
from experiments.reporting.comparison_pages import write_comparison_pages
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.report_files import write_report
from libcore.graph import InteractionGraph

LAYERS = ("layers.0", "layers.1", "layers.2", "output")


@cache
def two_runs(base: Path) -> tuple[FinishedRun, FinishedRun]:
    """LIB and PCA on the toy digits, with pages; not to be changed."""
    settings = ("model=cifar10_mlp", *TOY_MODELS["cifar10_mlp"], "tracking.mode=disabled")
    stages = "analysis.stages=[basis,edges,figures]"
    directories = [
        run_here(base / "compared", method, *settings, stages, f"method={method}") for method in ("lib", "pca")
    ]
    left, right = (
        FinishedRun(one, yaml.safe_load((one / "config.yaml").read_text("utf-8")), read_json(one / "metrics.json"))
        for one in directories
    )
    return left, right


@pytest.fixture
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinishedRun, FinishedRun]:
    return two_runs(tmp_path_factory.getbasetemp())


def test_embeds_both_runs_with_their_examples_and_matches_by_correlation(
    runs: tuple[FinishedRun, FinishedRun], tmp_path: Path
) -> None:
    write_compare_page(tmp_path / "compare.html", *runs)
    sides = embedded(tmp_path / "compare.html")["sides"]
    assert [side["name"] for side in sides] == ["LIB", "PCA"]
    left, right = (InteractionGraph.load(run.directory / "graph.safetensors") for run in runs)
    for run, side in zip(runs, sides, strict=True):
        assert side["run"] == embedded(run.directory / "figures" / "graph.html")
        assert (tmp_path / unquote(side["page"])).samefile(run.directory / "figures" / "graph.html")
        assert any(layer["examples"] for layer in side["run"]["layers"])
    for index, layer in enumerate(LAYERS):
        expected = feature_correlations(left.statistics[layer], left.bases[layer], right.bases[layer])
        for matches, correlation in ((sides[0]["matches"], expected), (sides[1]["matches"], expected.T)):
            for found, row in zip(matches[index], correlation, strict=True):
                assert len(found) <= 5
                for other, value in found:
                    assert value == pytest.approx(float(row[other]), abs=6e-4)
                    assert abs(value) >= 0.1
                strongest = row.abs().sort(descending=True).values[: len(found)]
                assert [abs(value) for _, value in found] == pytest.approx(strongest.tolist(), abs=6e-4)
    assert [match[0][0] for match in sides[0]["matches"][3]] == list(range(10)), "logits are the same features"


def test_a_run_without_its_page_is_shown_without_examples(
    runs: tuple[FinishedRun, FinishedRun], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("graph.safetensors", "features.json"):
        (bare / name).write_bytes((runs[0].directory / name).read_bytes())
    write_compare_page(tmp_path / "compare.html", replace(runs[0], directory=bare), runs[1])
    layers = embedded(tmp_path / "compare.html")["sides"][0]["run"]["layers"]
    assert [layer["examples"] for layer in layers] == [[]] * 4
    assert embedded(tmp_path / "compare.html")["sides"][0]["page"] is None
    assert layers[3]["labels"] == read_json(bare / "features.json")["labels"]["output"]


def test_runs_of_one_method_are_told_apart_by_seed(runs: tuple[FinishedRun, FinishedRun], tmp_path: Path) -> None:
    write_compare_page(tmp_path / "compare.html", runs[0], replace(runs[0], config=runs[0].config | {"seed": 4}))
    names = [side["name"] for side in embedded(tmp_path / "compare.html")["sides"]]
    assert names == ["LIB, seed 0", "LIB, seed 4"]


def test_runs_that_do_not_fit_are_refused_in_one_line(runs: tuple[FinishedRun, FinishedRun], tmp_path: Path) -> None:
    left, _ = runs
    other = tmp_path / "other"
    other.mkdir()
    (other / "features.json").write_bytes((left.directory / "features.json").read_bytes())
    with pytest.raises(ValueError, match="no bases; expected a run whose stages have them"):
        write_compare_page(tmp_path / "compare.html", left, replace(left, directory=other))
    graph = InteractionGraph.load(left.directory / "graph.safetensors")
    moved = replace(graph.statistics["layers.1"], mean=graph.statistics["layers.1"].mean + 0.5)
    replace(graph, statistics=graph.statistics | {"layers.1": moved}).save(other / "graph.safetensors")
    with pytest.raises(ValueError, match=r"layers.1: means of the activations .*expected one model") as raised:
        write_compare_page(tmp_path / "compare.html", left, replace(left, directory=other))
    assert len(str(raised.value).splitlines()) == 1
    (other / "features.json").write_text("[]")
    with pytest.raises(ValueError, match="not readable"):
        write_compare_page(tmp_path / "compare.html", left, replace(left, directory=other))
    (other / "features.json").unlink()
    with pytest.raises(ValueError, match=r"no features.json"):
        write_compare_page(tmp_path / "compare.html", left, replace(left, directory=other))
    assert not (tmp_path / "compare.html").exists()


@pytest.fixture
def page(browser: Page, runs: tuple[FinishedRun, FinishedRun], tmp_path: Path) -> Iterator[Page]:
    """The page of both runs, freshly opened; whatever is done to it must raise no error and ask for nothing."""
    write_compare_page(tmp_path / "compare.html", *runs)
    browser.open(tmp_path / "compare.html", 1400, 900)
    yield browser
    next_frame(browser)
    assert browser.errors == []
    assert browser.requests == []


def node(side: int, layer: str, feature: int) -> str:
    return f'document.querySelector(\'[data-side="{side}"] .node[data-layer="{layer}"][data-feature="{feature}"]\')'


def click(page: Page, target: str) -> None:
    page.run(f"{target}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    next_frame(page)


def linked(page: Page, side: int) -> set[tuple[str, int]]:
    found = page.run(
        f"[...document.querySelectorAll('[data-side=\"{side}\"] .node.linked')]"
        ".map((one) => [one.dataset.layer, Number(one.dataset.feature)])"
    )
    return {(layer, feature) for layer, feature in found}


def texts(page: Page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({selector!r})].map((found) => found.textContent)")


@needs_chromium
def test_what_is_pinned_on_one_side_is_framed_on_the_other(page: Page, tmp_path: Path) -> None:
    matches = embedded(tmp_path / "compare.html")["sides"][0]["matches"][1][1]
    click(page, node(0, "layers.1", 1))
    assert linked(page, 1) == {("layers.1", other) for other, value in matches if abs(value) >= 0.5}
    assert linked(page, 0) == set()
    page.run("field = document.querySelector('#least'); field.value = 0.1")
    page.run("field.dispatchEvent(new Event('input', {bubbles: true}))")
    next_frame(page)
    assert linked(page, 1) == {("layers.1", other) for other, _ in matches}
    listed = page.run("[...document.querySelectorAll('.correlated tr')].map((row) => Number(row.dataset.feature))")
    assert listed == [other for other, _ in matches]
    assert [float(one) for one in texts(page, ".correlated .measure")] == pytest.approx([one for _, one in matches])
    page.run("document.querySelector('.correlated button').click()")
    assert texts(page, ".feature-card h2")[0].startswith("PCA: ")
    assert linked(page, 0) != set()
    page.key("Escape")
    assert linked(page, 0) == linked(page, 1) == set()


@needs_chromium
def test_pointing_links_too_and_leaves_nothing_behind(page: Page) -> None:
    page.run(f"{node(1, 'output', 3)}.focus()")
    assert ("output", 3) in linked(page, 0)
    page.run(f"{node(1, 'output', 3)}.blur()")
    assert linked(page, 0) == set()


@needs_chromium
def test_the_same_examples_stand_beside_each_other_with_both_sides_activations(page: Page, tmp_path: Path) -> None:
    left, right = (side["run"]["layers"][1]["examples"] for side in embedded(tmp_path / "compare.html")["sides"])
    click(page, node(0, "layers.1", 1))
    counterpart = int(page.run("document.querySelector('.correlated tr').dataset.feature"))
    rows = page.run(
        "[...document.querySelectorAll('.common tbody tr')].map((row) => [...row.children].slice(1, 3)"
        ".map((cell) => Number(cell.textContent)))"
    )
    expected = sorted(zip(left[1]["common"], right[counterpart]["common"], strict=True), reverse=True)
    assert len(rows) == len(expected) > 1
    assert torch.tensor(rows) == pytest.approx(torch.tensor(expected), rel=1e-2, abs=1e-3)
    assert texts(page, ".common thead th")[1:3] == ["LIB 1", f"PCA {counterpart}"]


@needs_chromium
def test_the_address_restores_pins_on_both_sides(page: Page, tmp_path: Path) -> None:
    click(page, node(0, "layers.1", 2))
    click(page, node(1, "layers.2", 1))
    page.run("new Promise((done) => setTimeout(done, 250))")
    address = page.run("location.hash").lstrip("#")
    shown = texts(page, ".feature-card h2")
    page.open(tmp_path / "compare.html", 1400, 900, address)
    assert texts(page, ".feature-card h2") == shown
    assert [one.split(":")[0] for one in shown] == ["PCA", "LIB"]
    wrong = json.dumps([[2, "layers.1", 2]])
    page.open(tmp_path / "compare.html", 1400, 900, f"pins={wrong}")
    assert (
        text(page, "#message") == "The address could not be read: “pins” is no list of sides, node layers and features."
    )


@needs_chromium
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_both_graphs_and_the_panel_share_the_window(page: Page, tmp_path: Path, width: int) -> None:
    page.open(tmp_path / "compare.html", width, 800)
    click(page, node(0, "layers.1", 1))
    boxes = page.run(
        "[...document.querySelectorAll('.graph-view .scroll, aside')].map((one) => one.getBoundingClientRect())"
        ".map(({left, top, right, bottom}) => [left, top, right, bottom])"
    )
    assert len(boxes) == 3
    for left, top, right, bottom in boxes:
        assert (left >= 0, top >= 0, right <= width, bottom <= 800.5) == (True,) * 4
        assert right - left >= (300 if width > 1000 else width)
        assert bottom - top > 80
    for one, other in ((0, 1), (1, 2), (0, 2)):
        apart = (
            boxes[one][2] <= boxes[other][0]
            or boxes[other][2] <= boxes[one][0]
            or boxes[one][3] <= boxes[other][1]
            or boxes[other][3] <= boxes[one][1]
        )
        assert apart
    roles = {"button", "slider", "checkbox", "combobox", "searchbox", "textbox", "link"}
    named = [one for one in page.send("Accessibility.getFullAXTree")["nodes"] if not one.get("ignored")]
    found = [one.get("name", {}).get("value") for one in named if one.get("role", {}).get("value") in roles]
    assert all(found)


def test_a_report_has_a_page_of_each_pair_and_links_to_it(
    runs: tuple[FinishedRun, FinishedRun], tmp_path: Path
) -> None:
    for run in runs:
        copied = tmp_path / "runs" / run.directory.name
        shutil.copytree(run.directory, copied)
        (copied / "status.json").write_text('{"status": "finished"}')
    write_report([tmp_path / "runs"], tmp_path / "report")
    sides = embedded(tmp_path / "report" / "compare.html")["sides"]
    assert [side["name"] for side in sides] == ["LIB", "PCA"]
    assert (tmp_path / "report" / unquote(sides[1]["page"])).is_file()
    assert "[LIB beside PCA: both graphs](compare.html)" in (tmp_path / "report" / "report.md").read_text("utf-8")
    assert '<a href="compare.html">LIB beside PCA</a>' in (tmp_path / "report" / "report.html").read_text("utf-8")


def test_runs_that_cannot_stand_beside_each_other_are_left_out(
    runs: tuple[FinishedRun, FinishedRun], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = replace(runs[1], directory=tmp_path)
    assert write_comparison_pages([runs[0], other], tmp_path, "") == {}
    assert "no page of" in caplog.text
    of_another_seed = replace(runs[1], config=runs[1].config | {"seed": 1})
    assert write_comparison_pages([runs[0], of_another_seed], tmp_path, "") == {}
