"""The page of a language model's features: what it embeds, and what it does in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import Page
from graph_page_case import HOSTILE, embedded, needs_chromium, next_frame, node, text
from torch import Generator, Tensor
from torch.nn import functional

from experiments.pages import run_data
from experiments.pages.embedded_contexts import SHADES
from experiments.pages.features_page import write_features_page
from experiments.pages.graph_page import write_graph_page
from experiments.pages.run_data import LISTED_EDGES, RunContent
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from libcore.basis import Basis
from libcore.chain import Chain
from libcore.graph import InteractionGraph, interaction_edges
from libcore.sections import FunctionSection
from libcore.statistics import LayerStatistics
from models.analysed import TokenContexts
from models.transformer import contexts as contexts_module
from models.transformer.contexts import token_contexts_of

LAYERS = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_resid_post")
WIDTH, N, LENGTH = 12, 40, 50
WORDS = (" the", " a", "once", " upon", " time", "ing", " lily", " dog", " park", ".", ",", " and", "s", "ed", " was")
NASTY = (
    "</script><script>window.broken = true</script>", "<b>&amp;", "\n", "\t", "  ", "", "\ud800", "\ufffd",
    "\u202eevil", "שלום", "مرحبا", "\u0301", "\u200d", "\x00", '"', "'", "🦊", "\u00a0", "\u2028",
)  # fmt: skip
VOCABULARY = WORDS + NASTY


@cache
def described() -> tuple[InteractionGraph, FeatureTable, TokenContexts]:
    """A small random language model: its graph, with fewer features described than there are, and its contexts."""
    generator = Generator().manual_seed(0)
    embedding = torch.randn(len(VOCABULARY), WIDTH, generator=generator)
    mixing = torch.randn(2, WIDTH + 1, WIDTH, generator=generator)
    reading = torch.randn(WIDTH + 1, len(VOCABULARY), generator=generator)

    def head(tokens: Tensor) -> Tensor:
        embedded = embedding[tokens]
        return functional.pad(embedded + embedded.mean(1, keepdim=True), (0, 1), value=1.0)

    def block(weight: Tensor) -> FunctionSection:
        return FunctionSection(lambda stream: stream + functional.pad(torch.tanh(stream @ weight), (0, 1)))

    chain = Chain(LAYERS, tuple(block(weight) for weight in mixing), head, True, FunctionSection(lambda f: f @ reading))
    tokens = torch.randint(0, len(VOCABULARY), (N, LENGTH), generator=generator)
    bases, statistics = {}, {}
    for layer in LAYERS:
        to_basis = torch.zeros(WIDTH + 1, WIDTH + 1)
        to_basis[-1, 0] = 1.0
        to_basis[:-1, 1:] = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
        importance = torch.logspace(2, -4, WIDTH + 1)
        bases[layer] = Basis(to_basis, to_basis.T.clone(), importance, has_constant=True)
        statistics[layer] = LayerStatistics(torch.zeros(WIDTH + 1), torch.eye(WIDTH + 1), count=1)
    edges = interaction_edges(chain, tokens[:4], bases)
    labels = {layer: ["constant", *(f"{layer[15:]} no. {i}" for i in range(1, WIDTH + 1))] for layer in LAYERS}
    labels[LAYERS[1]][2] = HOSTILE
    communities = {layer: [NO_COMMUNITY, *(i % 9 for i in range(WIDTH))] for layer in LAYERS}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(contexts_module, "N_FEATURES", WIDTH - 2)
        found = token_contexts_of(tokens, VOCABULARY, 2**24)(chain, bases)
    return InteractionGraph(LAYERS, statistics, bases, edges), FeatureTable(labels, communities), found


def content(**changes: Any) -> RunContent:
    graph, table, contexts = described()
    shown_edges = dict.fromkeys(LAYERS[:-1], 10)
    return replace(
        RunContent(f"Features {HOSTILE}", {"method": "lib"}, graph, table, shown_edges, contexts=contexts), **changes
    )


def write(path: Path, graph_page: str | None = "graph.html") -> None:
    write_features_page(path, content(), graph_page)


def shown_as(token: str) -> str:
    """The token as the page writes it."""
    marks = {" ": "·", "\n": "↵", "\t": "→"} | {c: f"\\u{{{ord(c):x}}}" for c in "\ud800\u202e\u200d\x00\u00a0\u2028"}
    return {"": "∅", "\u0301": "◌\u0301"}.get(token, "".join(marks.get(character, character) for character in token))


def test_embeds_sequences_contexts_and_shades(tmp_path: Path) -> None:
    write(tmp_path / "features.html")
    data, (graph, table, contexts) = embedded(tmp_path / "features.html"), described()
    tokens = data["tokens"]
    texts = [[tokens["texts"][token] for token in sequence] for sequence in tokens["sequences"]]
    assert texts == [[VOCABULARY[token] for token in sequence] for sequence in contexts.tokens.tolist()]
    assert len(set(tokens["texts"])) == len(tokens["texts"])
    for layer, name in zip(data["layers"], LAYERS, strict=True):
        found = contexts.by_layer[name]
        assert layer["labels"] == table.labels[name]
        assert layer["first"] == 1
        assert len(layer["examples"]) == WIDTH - 2
        for index, feature in enumerate(layer["examples"]):
            assert feature["histogram"] == found.histogram[index].tolist()
            assert feature["mean"] == pytest.approx(float(found.mean[index]), rel=1e-5)
            scale = max(abs(feature["lowest"]), abs(feature["highest"]))
            for end, windows in (("top", found.highest), ("bottom", found.lowest)):
                for context, sequence, position, window in zip(
                    feature[end],
                    windows.sequences[index],
                    windows.positions[index],
                    windows.activations[index],
                    strict=True,
                ):
                    assert (context["sequence"], context["position"]) == (sequence, position)
                    within = window[~window.isnan()]
                    assert context["value"] == pytest.approx(float(window[contexts.before]), rel=1e-3)
                    assert torch.tensor(context["shades"]) / SHADES * scale == pytest.approx(within, abs=1e-3 * scale)
            common = torch.tensor(feature["common"]) / SHADES * scale
            assert common == pytest.approx(found.common[index], abs=1e-3 * scale)
            for of_quantile, places in zip(feature["quantiles"], found.quantiles, strict=True):
                assert [place["sequence"] for place in of_quantile] == places.sequences[index].tolist()
                values = places.activations[index, :, contexts.before].tolist()
                assert [place["value"] for place in of_quantile] == pytest.approx(values, rel=1e-3)
    assert graph.node_layers == LAYERS


def test_holds_each_feature_s_strongest_edges_to_and_from_features_that_vary(tmp_path: Path) -> None:
    write(tmp_path / "features.html")
    pairs, (graph, _, _) = embedded(tmp_path / "features.html")["pairs"], described()
    for (layer, _), pair in zip(pairwise(LAYERS), pairs, strict=True):
        strengths = graph.edges[layer]
        kept = set(zip(pair["edges"]["targets"], pair["edges"]["sources"], strict=True))
        assert pair["constantEdges"]["sources"] == []
        for feature in range(1, WIDTH + 1):
            into = (strengths[feature, 1:].argsort(descending=True) + 1)[:LISTED_EDGES].tolist()
            out = (strengths[1:, feature].argsort(descending=True) + 1)[:LISTED_EDGES].tolist()
            assert {(feature, source) for source in into} <= kept
            assert {(target, feature) for target in out} <= kept
        ends = zip(pair["edges"]["targets"], pair["edges"]["sources"], strict=True)
        expected = [float(strengths[end]) for end in ends]
        assert pair["edges"]["strengths"] == pytest.approx(expected, rel=1e-5)


def test_only_listed_edges_are_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_data, "LISTED_EDGES", 1)
    write(tmp_path / "features.html")
    for pair in embedded(tmp_path / "features.html")["pairs"]:
        assert WIDTH <= len(pair["edges"]["strengths"]) < 2 * WIDTH


def test_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    contexts = described()[2]
    layer = contexts.by_layer[LAYERS[0]]
    shifted = replace(contexts, by_layer=contexts.by_layer | {LAYERS[0]: replace(layer, first=4)})
    with pytest.raises(ValueError, match=r"contexts of features 4 to 13; expected at most the 13"):
        write_features_page(tmp_path / "features.html", content(contexts=shifted))
    infinite = replace(contexts, by_layer=contexts.by_layer | {LAYERS[0]: replace(layer, mean=layer.mean / 0)})
    with pytest.raises(ValueError, match=r"moments of blocks.0.hook_resid_pre holds a number that is not finite"):
        write_features_page(tmp_path / "features.html", content(contexts=infinite))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """The page, freshly opened; whatever is done to it must raise no error and ask for nothing."""
    write(tmp_path / "features.html")
    browser.open(tmp_path / "features.html", width=1400, height=900)
    yield browser
    next_frame(browser)
    assert browser.errors == []
    assert browser.requests == []
    assert browser.run("window.broken === undefined")


def go_to(page: Page, layer: str, feature: int) -> None:
    changed = "new Promise((done) => addEventListener('hashchange', done, {once: true}))"
    address = f'at=["{layer}",{feature}]'
    page.run(f"(() => {{ const changed = {changed}; location.hash = {address!r}; return changed; }})()")


def texts(page: Page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({selector!r})].map((found) => found.textContent)")


def shown(page: Page) -> tuple[str, str]:
    """What the page says it shows, and what its list marks as current."""
    next_frame(page)
    where = f"{text(page, '.fact-layer')}, feature {text(page, '.fact-feature')}"
    return where, text(page, "#features [aria-current] .number")


@needs_chromium
def test_shows_the_most_important_feature_at_first_and_lists_all_described(page: Page) -> None:
    assert shown(page) == (f"{LAYERS[0]}, feature 1", "1")
    assert texts(page, "#features .number") == [str(i) for i in range(1, WIDTH - 1)]
    assert texts(page, "#layer option") == list(LAYERS)
    assert text(page, ".fact-rank") == f"1 of {WIDTH}"
    assert text(page, "h1") == f"Features {HOSTILE}"
    assert page.run("document.querySelector('#other-page').getAttribute('href')") == "graph.html"


@needs_chromium
def test_every_context_shows_its_tokens_with_the_extreme_one_framed(page: Page) -> None:
    _, _, contexts = described()
    for layer in LAYERS[1:]:
        go_to(page, layer, 5)
        for end, windows in (("top", contexts.by_layer[layer].highest), ("bottom", contexts.by_layer[layer].lowest)):
            rows = page.run(
                f"[...document.querySelectorAll('ol.{end} .context')].map((row) => [...row.querySelectorAll('.token')]"
                ".map((token) => [token.textContent, token.title, token.classList.contains('peak')]))"
            )
            assert len(rows) == 10
            for row, sequence, position, window in zip(
                rows, windows.sequences[4], windows.positions[4], windows.activations[4], strict=True
            ):
                start = max(0, int(position) - contexts.before)
                expected = contexts.tokens[sequence, start : start + len(row)].tolist()
                assert [token for token, _, _ in row] == [shown_as(VOCABULARY[index]) for index in expected]
                assert [is_peak for _, _, is_peak in row] == [start + i == position for i in range(len(row))]
                values = window[~window.isnan()].tolist()
                scale = max(abs(value) for value in values)
                assert [float(title) for _, title, _ in row] == pytest.approx(values, abs=5e-3 * scale)


@needs_chromium
def test_shades_follow_sign_and_size(page: Page) -> None:
    script = (
        "[...document.querySelectorAll('.top .token, .bottom .token')].map((token) => "
        "[Number(token.title), getComputedStyle(token).backgroundColor])"
    )
    values = page.run(script)
    opacity = {value: float(colour.rstrip(")").split("/")[1]) for value, colour in values if "/" in colour}
    largest = max(opacity, key=abs)
    for value, found in opacity.items():
        assert found == pytest.approx(0.72 * abs(value) / abs(largest), abs=0.02)
    red = {value: float(re.findall(r"[\d.]+", colour)[0]) for value, colour in values if "/" in colour}
    strong = {value: part for value, part in red.items() if abs(value) > 0.2 * abs(largest)}
    assert {value > 0 for value in strong} == {True, False}
    assert all((part > 0.5) == (value > 0) for value, part in strong.items())


@needs_chromium
def test_effects_and_histogram(page: Page) -> None:
    go_to(page, LAYERS[1], 3)
    found = described()[2].by_layer[LAYERS[1]]
    assert found.effects is not None
    assert texts(page, ".raised .token") == [shown_as(VOCABULARY[index]) for index in found.effects.raised[2]]
    assert texts(page, ".lowered .token") == [shown_as(VOCABULARY[index]) for index in found.effects.lowered[2]]
    values = [float(value) for value in texts(page, ".lowered .value")]
    assert values == pytest.approx(found.effects.lowered_by[2].tolist(), rel=1e-3)
    counts = page.run("[...document.querySelectorAll('.histogram rect')].map((bar) => Number(bar.dataset.count))")
    assert counts == found.histogram[2].tolist()
    heights = page.run("[...document.querySelectorAll('.histogram rect')].map((bar) => bar.height.baseVal.value)")
    assert all((height > 0) == (count > 0) for height, count in zip(heights, counts, strict=True))
    assert max(heights) == pytest.approx(131, abs=0.1)


@needs_chromium
def test_edges_lead_to_the_features_they_name(page: Page) -> None:
    graph, table, _ = described()
    go_to(page, LAYERS[1], 4)
    order = (graph.edges[LAYERS[0]][4, 1:].argsort(descending=True) + 1)[:7].tolist()
    names = texts(page, ".incoming tbody button")
    assert names == [table.labels[LAYERS[0]][partner] for partner in order]
    place = next(place for place, partner in enumerate(order) if partner < WIDTH - 1)
    page.run(f"document.querySelectorAll('.incoming tbody button')[{place}].click()")
    assert shown(page) == (f"{LAYERS[0]}, feature {order[place]}", str(order[place]))
    assert texts(page, ".incoming tbody button") == []


@needs_chromium
def test_arrow_keys_step_through_features_and_layers_and_stop_at_the_ends(page: Page) -> None:
    for key, layer, feature in (
        ("ArrowUp", 0, 1), ("ArrowLeft", 0, 1), ("ArrowDown", 0, 2), ("ArrowDown", 0, 3), ("ArrowUp", 0, 2),
        ("ArrowRight", 1, 1), ("ArrowDown", 1, 2), ("ArrowRight", 2, 1), ("ArrowRight", 2, 1), ("ArrowLeft", 1, 1),
    ):  # fmt: skip
        page.key(key)
        assert shown(page) == (f"{LAYERS[layer]}, feature {feature}", str(feature))
        assert page.run("document.querySelector('#layer').selectedIndex") == layer
    go_to(page, LAYERS[0], WIDTH - 2)
    page.key("ArrowDown")
    assert shown(page) == (f"{LAYERS[0]}, feature {WIDTH - 2}", str(WIDTH - 2))


@needs_chromium
def test_addresses_name_features_and_what_they_cannot_name_is_told(page: Page) -> None:
    go_to(page, LAYERS[2], 7)
    assert shown(page) == (f"{LAYERS[2]}, feature 7", "7")
    for address in (f'at=["{LAYERS[2]}",{WIDTH + 1}]', 'at=["nowhere",3]', "at=%", "at=7"):
        page.run(f"location.hash = {address!r}")
        assert shown(page) == (f"{LAYERS[0]}, feature 1", "1")
        assert text(page, "#message").startswith("The address could not be read: “at”")
    go_to(page, LAYERS[0], WIDTH - 1)
    next_frame(page)
    assert text(page, ".fact-feature") == str(WIDTH - 1)
    assert "No examples were collected" in text(page, "#feature")
    page.run("field = document.querySelector('#layer'); field.value = 1; field.dispatchEvent(new Event('change'))")
    assert shown(page) == (f"{LAYERS[1]}, feature 1", "1")
    page.run("document.querySelectorAll('#features a')[1].click()")
    assert shown(page) == (f"{LAYERS[1]}, feature 2", "2")
    assert text(page, "#name") == HOSTILE


@needs_chromium
def test_search_finds_features_of_all_node_layers(page: Page) -> None:
    def find(query: str) -> list[str]:
        page.run(f"field = document.querySelector('#search'); field.value = {query!r}")
        page.run("field.dispatchEvent(new Event('input', {bubbles: true}))")
        return texts(page, "#features .name")

    assert find("no. 3") == [f"{layer[15:]} no. 3 · {layer}" for layer in LAYERS]
    assert text(page, "#match-count") == "3 found"
    assert find("mid 5") == [f"{LAYERS[1][15:]} no. 5 · {LAYERS[1]}"]
    page.run("document.querySelector('#features a').click()")
    assert text(page, ".fact-layer") == LAYERS[1]
    assert find("nowhere") == []
    assert len(find("")) == WIDTH - 2


@needs_chromium
def test_features_without_edges_signs_or_graph_are_shown_too(browser: Page, tmp_path: Path) -> None:
    graph = replace(described()[0], edges={})
    write_features_page(tmp_path / "features.html", content(graph=graph))
    browser.open(tmp_path / "features.html", 1400, 900)
    assert shown(browser) == (f"{LAYERS[0]}, feature 1", "1")
    assert texts(browser, ".edge-list") == texts(browser, "#other-page") == []
    assert len(texts(browser, "ol.top .context")) == 10
    assert browser.errors == []


@needs_chromium
def test_pins_go_along_to_the_graph(page: Page) -> None:
    go_to(page, LAYERS[1], 3)
    page.run("document.querySelector('#pin').click()")
    assert text(page, "#pin") == "Release"
    go_to_address = "document.querySelector('#other-page')"
    page.run(f"{go_to_address}.addEventListener('click', (event) => event.preventDefault())")
    page.run(f"{go_to_address}.click()")
    address = page.run(f"decodeURIComponent({go_to_address}.href)")
    assert f'pins=[["{LAYERS[1]}",3]]' in address
    assert address.partition("#")[0].endswith("/graph.html")


@needs_chromium
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_fits_the_window(page: Page, tmp_path: Path, width: int) -> None:
    page.open(tmp_path / "features.html", width=width, height=900)
    for layer in LAYERS:
        go_to(page, layer, 2)
        page.run("document.querySelector('main').scrollTop = 0")
        for selector in ("html", "main"):
            assert page.run(f"((box) => box.scrollWidth <= box.clientWidth)(document.querySelector('{selector}'))")


@needs_chromium
def test_the_interaction_graph_s_panel_shows_the_same_examples_and_leads_here(page: Page, tmp_path: Path) -> None:
    contexts = described()[2]
    write_graph_page(tmp_path / "graph.html", content(), "features.html")
    page.open(tmp_path / "graph.html", width=1400, height=900)
    page.run("document.querySelector('#only-connected').click()")
    page.run("document.querySelector('#show-constant').click()")
    for feature in (0, WIDTH - 1):
        page.run(f"{node(LAYERS[1], feature)}.focus()")
        assert text(page, ".fact-feature") == str(feature)
        assert texts(page, "#panel .features-link") == texts(page, "#panel .context") == []
    page.run(f"{node(LAYERS[1], 3)}.focus()")
    values = [float(value) for value in texts(page, "#panel ol.top .value")]
    expected = contexts.by_layer[LAYERS[1]].highest.activations[2, :, contexts.before]
    assert values == pytest.approx(expected.tolist(), rel=1e-3)
    assert len(texts(page, "#panel .section-quantiles .context")) == 12
    assert len(texts(page, "#panel .histogram text")) > 0
    address = page.run("document.querySelector('#panel .features-link').href")
    page.open(tmp_path / "features.html", width=1400, height=900, fragment=address.partition("#")[2])
    assert shown(page) == (f"{LAYERS[1]}, feature 3", "3")


def test_what_both_pages_show_of_features_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are encoded, and principal components of thousands of coordinates computed, in it."""
    described, calls = run_data.described_features, []
    monkeypatch.setattr(run_data, "described_features", lambda one: calls.append(one) or described(one))
    shown = content()
    write_graph_page(tmp_path / "graph.html", shown)
    write_features_page(tmp_path / "features.html", shown)
    assert len(calls) == 1
