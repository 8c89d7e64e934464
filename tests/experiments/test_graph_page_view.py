"""The graph page's view: several pins, links one way, groups, signs; all of it kept in the address and in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from chromium import Page
from graph_page_case import (
    SHOWN,
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

from experiments.pages.graph_page import write_graph_page

pytestmark = needs_chromium


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Iterator[Page]:
    """The small graph's page, freshly opened; whatever is done to it must raise no error and ask for nothing."""
    write_graph_page(tmp_path / "graph.html", small_content(signed=small_signed()))
    browser.open(tmp_path / "graph.html", 1400, 900)
    browser.run("document.querySelector('#only-connected').click()")
    yield browser
    next_frame(browser)
    assert browser.errors == []
    assert browser.requests == []
    assert browser.run("window.broken === undefined")


def click(page: Page, target: str) -> None:
    page.run(f"{target}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")


def press(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({selector!r}).click()")


def choose(page: Page, selector: str, value: str) -> None:
    page.run(f"field = document.querySelector({selector!r}); field.value = {value!r}")
    page.run("field.dispatchEvent(new Event('change', {bubbles: true}))")


def cards(page: Page) -> list[str]:
    return page.run(
        "[...document.querySelectorAll('.feature-card')].map((card) => card.dataset.layer + ' ' + card.dataset.feature)"
    )


def texts(page: Page, selector: str) -> list[str]:
    return page.run(f"[...document.querySelectorAll({selector!r})].map((found) => found.textContent)")


def address(page: Page) -> dict[str, Any]:
    """What the address holds, once it is written."""
    page.run("new Promise((done) => setTimeout(done, 250))")
    parts = page.run("location.hash").lstrip("#")
    return {key: unquote(value) for key, _, value in (part.partition("=") for part in parts.split("&") if part)}


def state(page: Page) -> dict[str, Any]:
    """What a reader sees of the view."""
    next_frame(page)
    return {
        "cards": cards(page),
        "pressed": sorted(
            page.run(
                "[...document.querySelectorAll('.node[aria-pressed=true]')]"
                ".map((one) => one.dataset.layer + one.dataset.feature)"
            )
        ),
        "groups": page.run("[...document.querySelectorAll('.group')].map((one) => one.dataset.group)"),
        "chips": texts(page, ".chips li button:first-child"),
        "drawn": page.run("[...document.querySelectorAll('.pair-head')].map((head) => Number(head.dataset.drawn))"),
        "fields": page.run(
            "['links', 'order', 'colour', 'search', 'theme'].map((id) => document.getElementById(id).value)"
        ),
        "checked": page.run(
            "['only-connected', 'show-constant', 'fit-height'].map((id) => document.getElementById(id).checked)"
        ),
        "matches": len(texts(page, ".node.match")),
        "panel": page.run("document.querySelector('#side').hidden"),
    }


def change_everything(page: Page) -> None:
    click(page, node("layers.0", 3))
    click(page, node("layers.1", 2))
    page.run("document.querySelector('#new-group input').value = 'odd & even, Ä'")
    press(page, "#new-group button")
    for selector, value in (("#links", "in"), ("#order", "community"), ("#colour", "sign"), ("#theme", "dark")):
        choose(page, selector, value)
    page.run("field = document.querySelector('#search'); field.value = 'feature d'")
    page.run("field.dispatchEvent(new Event('input', {bubbles: true}))")
    page.run("field = document.querySelector('.pair-head input'); field.value = 700")
    page.run("field.dispatchEvent(new Event('input', {bubbles: true}))")
    for selector in ("#show-constant", "#fit-height", "#panel-toggle"):
        press(page, selector)


def test_several_features_are_pinned_newest_first_and_released_one_by_one_or_all(page: Page) -> None:
    for layer, feature in (("layers.0", 3), ("layers.1", 2), ("output", 0)):
        click(page, node(layer, feature))
    assert cards(page) == ["output 0", "layers.1 2", "layers.0 3"]
    lit = "document.querySelectorAll('.node.core').length"
    assert page.run(lit) == 3
    press(page, ".feature-card[data-layer='layers.1'] .feature-head button")
    assert cards(page) == ["output 0", "layers.0 3"]
    click(page, node("output", 0))
    assert cards(page) == ["layers.0 3"]
    click(page, node("output", 1))
    press(page, "#panel .tools button")
    assert cards(page) == []
    click(page, node("output", 1))
    page.key("Escape")
    assert cards(page) == []


def test_the_link_filter_lights_and_lists_one_direction(page: Page) -> None:
    source = int(small_graph().edges["layers.1"][:, 1:].max(0).values.argmax()) + 1
    click(page, node("layers.1", source))

    def lit_layers() -> set[str]:
        next_frame(page)
        return set(page.run("[...document.querySelectorAll('.node.lit')].map((one) => one.dataset.layer)"))

    assert lit_layers() == {"layers.0", "layers.1", "output"}
    choose(page, "#links", "in")
    assert lit_layers() == {"layers.0", "layers.1"}
    assert page.run("[...document.querySelectorAll('#panel .edge-list')].map((one) => one.className)") == [
        "edge-list incoming"
    ]
    choose(page, "#links", "out")
    assert lit_layers() == {"layers.1", "output"}
    assert page.run("[...document.querySelectorAll('#panel .edge-list')].map((one) => one.className)") == [
        "edge-list outgoing"
    ]


def test_edges_have_sign_mean_and_share_of_the_target_s_input(page: Page, tmp_path: Path) -> None:
    signed, graph = small_signed()["layers.0"], small_graph()
    pair = embedded(tmp_path / "graph.html")["pairs"][0]
    assert pair["averaged"] == 12
    assert pair["input"] == pytest.approx(signed.mean.abs().sum(1).tolist(), rel=1e-3)
    for target, source, mean, slope in zip(
        *(pair["edges"][name] for name in ("targets", "sources", "means", "slopes")), strict=True
    ):
        assert mean == pytest.approx(float(signed.mean[target, source]), rel=1e-3)
        assert slope == pytest.approx(float(signed.slope[target, source]), rel=1e-2)
    click(page, node("layers.1", 2))
    rows = page.run(
        "[...document.querySelectorAll('.incoming tbody tr')].map((row) => [Number(row.dataset.feature), "
        "row.querySelector('.sign').textContent, row.querySelector('.mean').textContent, "
        "row.querySelector('.share').textContent, row.querySelector('.sign').getAttribute('aria-label')])"
    )
    order = (graph.edges["layers.0"][2, 1:].argsort(descending=True) + 1).tolist()
    assert [source for source, *_ in rows] == order[: len(rows)]
    for source, sign, mean, share, spoken in rows:
        assert sign == ("+" if signed.slope[2, source] > 0 else "−")
        assert spoken.startswith("raises" if sign == "+" else "lowers")
        assert float(mean) == pytest.approx(float(signed.mean[2, source]), rel=0.06)
        assert float(share.rstrip(" %")) / 100 == pytest.approx(float(signed.share[2, source]), abs=0.006)
    painted = "document.querySelector('.edges').toDataURL()"
    next_frame(page)
    by_community = page.run(painted)
    choose(page, "#colour", "sign")
    next_frame(page)
    assert page.run(painted) != by_community


def test_a_graph_without_signs_offers_none(browser: Page, tmp_path: Path) -> None:
    write_graph_page(tmp_path / "graph.html", small_content())
    browser.open(tmp_path / "graph.html")
    click(browser, node("layers.1", 2))
    assert browser.run("document.querySelector('#colour').disabled")
    assert texts(browser, ".incoming thead th") == ["from", "E"]
    assert browser.errors == []


def test_groups_are_named_filled_renamed_and_removed_by_the_reader(page: Page) -> None:
    click(page, node("layers.0", 3))
    click(page, node("layers.1", 2))
    page.run("document.querySelector('#new-group input').value = 'first'")
    press(page, "#new-group button")
    assert state(page)["groups"] == ["first"]
    labels = small_table().labels
    assert state(page)["chips"] == [labels["layers.1"][2], labels["layers.0"][3]]
    click(page, node("output", 1))
    page.run("[...document.querySelectorAll('.group button')].find((one) => one.textContent === 'Add pinned').click()")
    assert len(state(page)["chips"]) == 3
    press(page, ".chips li:first-child button:last-child")
    assert state(page)["chips"] == [labels["layers.0"][3], labels["output"][1]]
    choose(page, ".group input", "renamed")
    assert state(page)["groups"] == ["renamed"]
    choose(page, ".group input", " ")
    assert (state(page)["groups"], text(page, "#message")) == (["renamed"], "A group needs a name.")
    page.run("document.querySelector('#new-group input').value = 'renamed'")
    press(page, "#new-group button")
    assert "There is a group “renamed” already." in text(page, "#message")
    page.key("Escape")
    page.run("[...document.querySelectorAll('.group button')].find((one) => one.textContent === 'Pin').click()")
    assert cards(page) == ["layers.0 3", "output 1"]
    press(page, ".group-head button:last-child")
    assert state(page)["groups"] == []


def test_the_address_holds_the_whole_view_and_restores_it(page: Page, tmp_path: Path) -> None:
    change_everything(page)
    seen, kept = state(page), address(page)
    assert set(kept) == {"pins", "groups", "links", "find", "counts", "order", "colour", "panel", "theme"} | {
        "connected",
        "constant",
        "fit",
    }
    assert json.loads(kept["pins"]) == [["layers.1", 2], ["layers.0", 3]]
    assert seen["drawn"][0] not in SHOWN.values()
    whole = page.run("location.href")
    page.open(tmp_path / "graph.html", 1400, 900)
    assert address(page) == {}
    assert state(page) != seen
    page.run(f"location.href = {whole!r}")
    page.run("new Promise((done) => setTimeout(done, 100))")
    assert state(page) == seen
    page.open(tmp_path / "graph.html", 1400, 900, whole.partition("#")[2])
    assert state(page) == seen


def test_a_saved_file_restores_the_view(page: Page, tmp_path: Path) -> None:
    page.run("saved = null; URL.createObjectURL = (blob) => { saved = blob; return 'data:,'; }")
    page.run("HTMLAnchorElement.prototype.click = function () { savedAs = this.download; }")
    change_everything(page)
    seen = state(page)
    press(page, "#save-view")
    assert page.run("savedAs") == "graph-view.json"
    (tmp_path / "view.json").write_text(page.run("saved.text()"), "utf-8")
    page.open(tmp_path / "graph.html", 1400, 900)
    load(page, tmp_path / "view.json")
    assert state(page) == seen
    assert text(page, "#message").startswith("View of “A graph")
    assert set(address(page)) > {"pins", "groups"}


def load(page: Page, path: Path) -> None:
    document = page.send("DOM.getDocument")["root"]["nodeId"]
    field = page.send("DOM.querySelector", nodeId=document, selector="#view-file")["nodeId"]
    page.send("DOM.setFileInputFiles", nodeId=field, files=[str(path)])
    page.run("new Promise((done) => setTimeout(done, 200))")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "Not a saved view: expected a JSON file"),
        ("[1, 2]", "Not a saved view: expected a JSON file"),
        ({"pins": [["layers.9", 3]]}, "“pins” names layers.9 feature 3, which is not here"),
        ({"pins": [3]}, "“pins” holds something else than a node layer's name with a feature's number"),
        ({"links": "up"}, '“links” is "up"; expected both, in, out'),
        ({"groups": [{"name": " ", "features": []}]}, "“groups” holds a group without a name"),
        (
            {"groups": [{"name": "a", "features": [["output", 77]]}]},
            "has a group “a” that names output feature 77",
        ),
        ({"groups": [{"name": "a", "features": []}] * 2}, "“groups” holds two groups of one name"),
        ({"counts": [1]}, "“counts” is no list of 2 numbers of edges"),
        ({"connected": 1}, "“connected” is neither true nor false"),
    ],
)
def test_a_bad_file_is_told_in_a_line_and_changes_nothing(
    page: Page, tmp_path: Path, content: Any, message: str
) -> None:
    click(page, node("layers.0", 3))
    seen = state(page)
    whole = {"kind": "view of a local-interaction-basis page", "title": "x", "view": content}
    (tmp_path / "view.json").write_text(content if isinstance(content, str) else json.dumps(whole), "utf-8")
    load(page, tmp_path / "view.json")
    assert message in text(page, "#message")
    assert state(page) == seen


def test_the_panel_closes_and_opens(page: Page) -> None:
    width = "document.querySelector('.scroll').clientWidth"
    narrow = page.run(width)
    press(page, "#panel-toggle")
    assert page.run(width) > narrow + 300
    assert page.run("document.querySelector('#panel-toggle').getAttribute('aria-expanded')") == "false"
    press(page, "#panel-toggle")
    assert page.run(width) == narrow


def test_on_a_phone_the_graph_has_the_width_and_the_panel_is_a_sheet_below(browser: Page, tmp_path: Path) -> None:
    write_graph_page(tmp_path / "graph.html", small_content(signed=small_signed()))
    browser.open(tmp_path / "graph.html", 400, 800)

    def box(selector: str) -> list[float]:
        return browser.run(
            f"((r) => [r.left, r.top, r.right, r.bottom])(document.querySelector({selector!r}).getBoundingClientRect())"
        )

    left, top, right, bottom = box(".scroll")
    assert (left, right) == (0, 400)
    assert bottom - top > 0.75 * 800, "closed, the sheet leaves most of the height"
    click(browser, node("layers.0", 3))
    next_frame(browser)
    sheet, graph = box("aside"), box(".scroll")
    assert sheet[3] == 800
    assert sheet[1] >= graph[3], "graph and sheet do not overlap"
    assert graph[3] - graph[1] > 0.35 * 800
    press(browser, "#sheet-handle")
    assert box(".scroll")[3] > 700
    assert browser.run("getComputedStyle(document.querySelector('#controls')).display") == "none"
    press(browser, "#options-toggle")
    assert browser.run("getComputedStyle(document.querySelector('#controls')).display") != "none"
    parts = "[...document.querySelectorAll('#controls *, header *')].map((one) => one.getBoundingClientRect().right)"
    assert max(browser.run(parts)) <= 400
    assert browser.errors == []


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_everything_that_can_be_worked_has_a_name(browser: Page, tmp_path: Path, width: int) -> None:
    write_graph_page(tmp_path / "graph.html", small_content(signed=small_signed()), "features.html")
    browser.open(tmp_path / "graph.html", width, 900)
    click(browser, node("layers.0", 3))
    page_run = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "checkbox", "combobox", "searchbox", "textbox", "link", "spinbutton"}
    found = [one for one in page_run if not one.get("ignored") and one.get("role", {}).get("value") in roles]
    names = [one.get("name", {}).get("value", "") for one in found]
    assert len(found) > 15
    assert all(names), [one["role"]["value"] for one, name in zip(found, names, strict=True) if not name]
    assert "layers.0 3: 0-feature d" in names
