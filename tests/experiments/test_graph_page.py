"""The interaction graph's page: what it embeds, and what it does in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log
from pathlib import Path

import pytest
import torch
from chromium import Page
from graph_page_case import (
    HOSTILE,
    SHOWN,
    SIZES,
    centre,
    embedded,
    needs_chromium,
    next_frame,
    node,
    small_content,
    small_graph,
    small_signed,
    small_table,
    text,
)

from experiments.pages import embedded_graph
from experiments.pages.graph_page import write_graph_page
from experiments.pages.run_data import RunContent
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from libcore.basis import Basis
from libcore.graph import InteractionGraph


def write(path: Path) -> None:
    write_graph_page(path, small_content(signed=small_signed()))


def ranked(layer: str) -> list[tuple[int, int, float]]:
    """All edges above zero between features that are not constant, strongest first: target, source, strength."""
    strengths = small_graph().edges[layer]
    first_row = 0 if layer == "layers.1" else 1
    rows = [
        (target, source, float(strengths[target, source]))
        for target in range(first_row, strengths.shape[0])
        for source in range(1, strengths.shape[1])
    ]
    return sorted((row for row in rows if row[2] > 0), key=lambda row: -row[2])


def test_embeds_all_edges_strongest_first_to_six_digits(tmp_path: Path) -> None:
    write(tmp_path / "graph.html")
    data = embedded(tmp_path / "graph.html")
    for layer, pair in zip(SHOWN, data["pairs"], strict=True):
        targets, sources, strengths = zip(*ranked(layer), strict=True)
        assert pair["edges"]["targets"] == list(targets)
        assert pair["edges"]["sources"] == list(sources)
        assert pair["edges"]["strengths"] == pytest.approx(list(strengths), rel=5e-6)
        assert max(len(str(strength)) for strength in pair["edges"]["strengths"]) <= 8
    assert data["pairs"][0]["total"] == 6 * 8
    assert len(data["pairs"][0]["edges"]["strengths"]) == 6 * 8 - 1, "the edge of strength zero is left out"
    assert data["layers"][1]["labels"][2] == HOSTILE


def test_edges_of_constants_are_embedded_apart(tmp_path: Path) -> None:
    write(tmp_path / "graph.html")
    first, last = (pair["constantEdges"] for pair in embedded(tmp_path / "graph.html")["pairs"])
    assert all(0 in ends for ends in zip(first["sources"], first["targets"], strict=True))
    assert len(first["sources"]) == 7 + 9 - 1
    assert last["sources"] == [0] * 4, (
        "the last node layer has no constant feature: its feature 0 is one like any other"
    )


def test_keeps_only_the_strongest_of_many_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_graph, "MAX_EDGES_PER_PAIR", 10)
    write(tmp_path / "graph.html")
    pair = embedded(tmp_path / "graph.html")["pairs"][0]
    assert pair["total"] == 48
    assert pair["edges"]["targets"] == [target for target, _, _ in ranked("layers.0")[:10]]


def test_a_failed_write_leaves_the_old_page_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.html"
    path.write_text("old")

    def refuse(source: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", refuse)
        with pytest.raises(OSError, match="disk full"):
            write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    path, graph, table = tmp_path / "graph.html", small_graph(), small_table()
    with pytest.raises(ValueError, match=r"shown_edges has no 'layers.1'"):
        write_graph_page(path, small_content(shown_edges={"layers.0": 3}))
    shorter = FeatureTable(table.labels | {"output": ["a"]}, table.communities)
    with pytest.raises(ValueError, match="output: 1 labels and 4 communities for 4 features"):
        write_graph_page(path, small_content(table=shorter))
    graph.edges["layers.1"][1, 1] = torch.inf
    with pytest.raises(ValueError, match=r"edges/layers.1 holds a number that is not finite"):
        write_graph_page(path, small_content(graph=graph))
    assert not path.exists()


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """The small graph's page, freshly opened; whatever is done to it must raise no error and ask for nothing."""
    write(tmp_path / "graph.html")
    browser.open(tmp_path / "graph.html")
    yield browser
    next_frame(browser)
    assert browser.errors == []
    assert browser.requests == []
    assert browser.run("window.broken === undefined")


def names(page: Page, selector: str) -> list[str]:
    """The features that a selector finds, as "layer index"."""
    found = f"[...document.querySelectorAll({selector!r})]"
    return page.run(f"{found}.map((node) => node.dataset.layer + ' ' + node.dataset.feature)")


def enter(page: Page, selector: str, value: float | str) -> None:
    page.run(f"field = document.querySelector({selector!r}); field.value = {value!r};")
    page.run("field.dispatchEvent(new Event('input', {bubbles: true}))")


def drawn(page: Page) -> list[int]:
    return page.run("[...document.querySelectorAll('.pair-head')].map((head) => Number(head.dataset.drawn))")


def assert_panel_shows(page: Page, layer: str, feature: int) -> None:
    graph, table = small_graph(), small_table()
    assert text(page, "#panel h2") == table.labels[layer][feature]
    assert text(page, ".fact-layer") == layer
    assert text(page, ".fact-feature") == str(feature)
    assert float(text(page, ".fact-importance")) == pytest.approx(
        float(graph.bases[layer].importance[feature]), rel=1e-3
    )
    community = table.communities[layer][feature]
    assert text(page, ".fact-community") == ("none" if community == NO_COMMUNITY else str(community))


def assert_first_partner(page: Page, listed: str, layer: str, expected: tuple[int, float]) -> None:
    partner, strength = expected
    first = f"#panel .{listed} tbody tr:first-child"
    assert page.run(f"document.querySelector('{first}').dataset.layer") == layer
    assert page.run(f"document.querySelector('{first}').dataset.feature") == str(partner)
    assert text(page, f"{first} button") == small_table().labels[layer][partner]
    assert float(text(page, f"{first} .strength")) == pytest.approx(strength, rel=5e-3)


@needs_chromium
def test_hovering_shows_a_feature_and_its_strongest_edges(page: Page) -> None:
    page.mouse("mouseMoved", *centre(page, f"{node('layers.1', 2)}.querySelector('circle')"))
    assert_panel_shows(page, "layers.1", 2)
    assert_first_partner(page, "incoming", "layers.0", next((s, e) for t, s, e in ranked("layers.0") if t == 2))
    assert_first_partner(page, "outgoing", "output", next((t, e) for t, s, e in ranked("layers.1") if s == 2))
    incoming = {f"layers.0 {s}" for t, s, _ in ranked("layers.0")[: SHOWN["layers.0"]] if t == 2}
    outgoing = {f"output {t}" for t, s, _ in ranked("layers.1")[: SHOWN["layers.1"]] if s == 2}
    assert set(names(page, ".node.lit")) == {"layers.1 2"} | incoming | outgoing
    page.mouse("mouseMoved", 2, 2)
    assert page.run("document.querySelector('#panel h2') === null")


@needs_chromium
def test_keyboard_moves_between_features_and_pins(page: Page) -> None:
    page.run("document.querySelector('#only-connected').click()")
    page.run(f"{node('layers.0', 1)}.focus()")
    assert_panel_shows(page, "layers.0", 1)
    page.key("ArrowDown")
    assert_panel_shows(page, "layers.0", 2)
    page.key("ArrowRight")
    assert text(page, ".fact-layer") == "layers.1"
    page.key("ArrowLeft")
    page.key("Enter")
    pinned = text(page, "#panel h2")
    page.mouse("mouseMoved", *centre(page, f"{node('output', 0)}.querySelector('circle')"))
    assert text(page, "#panel h2") == pinned
    page.key("Escape")
    assert text(page, "#panel h2") == small_table().labels["output"][0]


@needs_chromium
def test_clicking_pins_and_a_partner_can_be_followed(page: Page) -> None:
    target, source, _ = ranked("layers.1")[0]
    x, y = centre(page, f"{node('layers.1', source)}.querySelector('circle')")
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.mouse(kind, x, y)
    page.mouse("mouseMoved", 2, 2)
    assert_panel_shows(page, "layers.1", source)
    page.run("document.querySelector('#panel .outgoing button').click()")
    assert_panel_shows(page, "output", target)


@needs_chromium
def test_sliders_set_how_many_edges_are_drawn(page: Page) -> None:
    def painted() -> int:
        next_frame(page)
        script = (
            "((c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v))"
        )
        return page.run(f"{script}(document.querySelector('.edges')).length")

    assert drawn(page) == list(SHOWN.values())
    few = painted()
    enter(page, "#multiple", log(3))
    assert drawn(page) == [36, 15]
    assert text(page, "#edge-total") == "× 3: 51 of 71 drawn"
    assert painted() > few > 0
    enter(page, "#multiple", 100)
    assert drawn(page) == [len(ranked("layers.0")), len(ranked("layers.1"))]
    enter(page, ".pair-head[data-layer='layers.1'] input", 1000 * log(10 + 1) / log(24 + 1))
    assert drawn(page) == [47, 10]
    enter(page, ".pair-head[data-layer='layers.0'] input", 0)
    assert drawn(page) == [0, 10]
    page.run("document.querySelector('#reset').click()")
    assert drawn(page) == list(SHOWN.values())
    assert exp(float(page.run("document.querySelector('#multiple').value"))) == 1


@needs_chromium
def test_features_without_drawn_edges_come_and_go(page: Page) -> None:
    def visible() -> set[str]:
        return set(names(page, ".node:not([hidden])"))

    connected = {f"{layer} {i}" for layer in SHOWN for _, i, _ in ranked(layer)[: SHOWN[layer]]}
    connected |= {f"layers.1 {i}" for i, _, _ in ranked("layers.0")[: SHOWN["layers.0"]]}
    connected |= {f"output {i}" for i, _, _ in ranked("layers.1")[: SHOWN["layers.1"]]}
    assert visible() == connected
    page.run("document.querySelector('#only-connected').click()")
    variable = {f"{layer} {i}" for layer, k in SIZES.items() for i in range(layer != "output", k)}
    assert connected < variable, "the test graph has features without drawn edges"
    assert visible() == variable
    page.run("document.querySelector('#show-constant').click()")
    assert visible() == variable | {"layers.0 0", "layers.1 0"}
    assert drawn(page) == list(SHOWN.values()), "edges of constants are not counted"
    page.run(f"{node('layers.1', 0)}.focus()")
    strengths = small_graph().edges["layers.1"][:, 0]
    assert_first_partner(page, "outgoing", "output", (int(strengths.argmax()), float(strengths.max())))


@needs_chromium
def test_search_finds_labels_and_layer_with_index(page: Page) -> None:
    def found() -> list[str]:
        return names(page, ".node.match")

    enter(page, "#search", "FEATURE d")
    assert found() == ["layers.0 3", "layers.1 3", "output 3"]
    assert text(page, "#match-count") == "3 found"
    enter(page, "#search", "layers.1 2")
    assert found() == ["layers.1 2"]
    enter(page, "#search", "</script>")
    assert found() == ["layers.1 2"]
    enter(page, "#search", "nothing like it")
    assert found() == []
    assert page.run("document.querySelector('.graph').classList.contains('focused')")
    enter(page, "#search", "")
    assert text(page, "#match-count") == ""
    assert not page.run("document.querySelector('.graph').classList.contains('focused')")


@needs_chromium
def test_page_says_what_it_holds_and_shows_text_as_text(page: Page) -> None:
    assert text(page, "h1") == f"A graph {HOSTILE}"
    assert text(page, "#summary") == "methodlib"
    lines = page.run("[...document.querySelectorAll('#kept li')].map((line) => line.textContent)")
    assert lines[0] == "layers.0 → layers.1: 12 drawn at first; the page holds the strongest 47 of 48"
    colours = page.run(
        f"[1, 4, 2, 5].map((i) => getComputedStyle({node('layers.1', 0)}.parentNode"
        '.querySelector(`.node[data-layer="layers.1"][data-feature="${i}"] circle`)).fill)'
    )
    assert colours[0] == colours[1], "one community, one colour"
    assert len(set(colours)) == 3, "another community and none have others"


@needs_chromium
@pytest.mark.parametrize("n_blocks", [2, 6])
def test_names_of_node_layers_are_shown_whole(browser: Page, tmp_path: Path, n_blocks: int) -> None:
    layers = tuple(f"blocks.{i // 2}.hook_resid_{('pre', 'mid')[i % 2]}" for i in range(2 * n_blocks))
    one = Basis(torch.eye(3).double(), torch.eye(3).double(), torch.ones(3).double(), has_constant=True)
    edges = {layer: torch.ones(3, 3).double() for layer in layers[:-1]}
    labels = {layer: ["constant", "one of two", "other"] for layer in layers}
    table = FeatureTable(labels, {layer: [NO_COMMUNITY, 0, 0] for layer in layers})
    graph = InteractionGraph(layers, {}, dict.fromkeys(layers, one), edges)
    write_graph_page(tmp_path / "graph.html", RunContent("title", {}, graph, table, dict.fromkeys(edges, 4)))
    browser.open(tmp_path / "graph.html")
    heads = "[...document.querySelectorAll('.layer-head div')]"
    assert browser.run(f"{heads}.map((head) => head.textContent)") == list(layers)
    assert browser.run(f"{heads}.filter((head) => head.scrollWidth > head.clientWidth).length") == 0
    assert browser.errors == []


@needs_chromium
def test_dark_scheme_turns_page_and_edges(page: Page) -> None:
    def look(scheme: str) -> tuple[str, str]:
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        next_frame(page)
        canvas = page.run("document.querySelector('.edges').toDataURL()")
        return page.run("getComputedStyle(document.body).backgroundColor"), canvas

    light, dark, light_again = (look(scheme) for scheme in ("light", "dark", "light"))
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert light == light_again


@needs_chromium
def test_driver_notices_errors_and_requests(browser: Page, tmp_path: Path) -> None:
    careless = tmp_path / "careless.html"
    careless.write_text(
        "<!doctype html><img src='http://localhost:9/picture.png'><script>throw new Error('oh')</script>"
    )
    try:
        browser.open(careless)
        assert any("oh" in error for error in browser.errors)
        assert browser.requests == ["http://localhost:9/picture.png"]
    finally:
        browser.errors.clear()
        browser.requests.clear()
