"""A small interaction graph for tests of its page, and how they ask the page what it shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import Page, chromium_path

from experiments.pages.run_data import RunContent
from experiments.pipeline.feature_table import NO_COMMUNITY, FeatureTable
from libcore.basis import Basis
from libcore.estimators.signed import SignedEdges
from libcore.graph import InteractionGraph
from libcore.statistics import LayerStatistics

SIZES = {"layers.0": 9, "layers.1": 7, "output": 4}
SHOWN = {"layers.0": 12, "layers.1": 5}
HOSTILE = "</script><script>window.broken = true</script><!-- & ' \" \u2028"

needs_chromium = pytest.mark.skipif(chromium_path() is None, reason="no Chromium here; install it or set CHROMIUM")


def small_graph() -> InteractionGraph:
    generator = torch.Generator().manual_seed(0)
    layers = tuple(SIZES)
    bases, statistics = {}, {}
    for layer, k in SIZES.items():
        importance = torch.rand(k, generator=generator, dtype=torch.float64).sort(descending=True).values
        bases[layer] = Basis(torch.eye(k).double(), torch.eye(k).double(), importance, has_constant=layer != "output")
        statistics[layer] = LayerStatistics(torch.zeros(k).double(), torch.eye(k).double(), count=1)
    edges = {
        layer: torch.randn(SIZES[after], SIZES[layer], generator=generator, dtype=torch.float64).exp()
        for layer, after in pairwise(layers)
    }
    edges["layers.0"][3, 4] = 0.0
    return InteractionGraph(layers, statistics, bases, edges)


def small_table() -> FeatureTable:
    labels = {layer: [f"{layer[-1]}-feature {'abcdefghij'[i]}" for i in range(k)] for layer, k in SIZES.items()}
    labels["layers.0"][0] = labels["layers.1"][0] = "constant"
    labels["layers.1"][2] = HOSTILE
    communities = {layer: [i % 3 for i in range(k)] for layer, k in SIZES.items()}
    communities["layers.0"][0] = communities["layers.1"][0] = communities["layers.1"][5] = NO_COMMUNITY
    return FeatureTable(labels, communities)


def small_signed() -> dict[str, SignedEdges]:
    generator = torch.Generator().manual_seed(1)
    return {
        layer: SignedEdges(
            torch.randn(SIZES[after], SIZES[layer], generator=generator, dtype=torch.float64),
            torch.randn(SIZES[after], SIZES[layer], generator=generator, dtype=torch.float64),
            n_examples=12,
        )
        for layer, after in pairwise(SIZES)
    }


def small_content(**changes: Any) -> RunContent:
    content = RunContent(f"A graph {HOSTILE}", {"method": "lib"}, small_graph(), small_table(), SHOWN)
    return replace(content, **changes)


def embedded(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found
    return json.loads(found[1])


def node(layer: str, feature: int) -> str:
    return f'document.querySelector(\'.node[data-layer="{layer}"][data-feature="{feature}"]\')'


def next_frame(page: Page) -> None:
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def centre(page: Page, element: str) -> tuple[float, float]:
    script = f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
    x, y = page.run(script)
    return x, y


def text(page: Page, selector: str) -> str:
    return page.run(f"document.querySelector({selector!r}).textContent")
