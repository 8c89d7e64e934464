"""Our Fourier labels against the published ones: the frequency that a feature mostly is, feature by feature."""

from __future__ import annotations

import json
import re

import pytest
import torch
from test_parity_modular_addition import MID, NODE_LAYERS, POST, PRE, REFERENCE, RUNS, SHARED, fit, model, published

from experiments.published.results import labels_of

OUT = SHARED / "published_clone" / "rib_scripts" / "rib_build" / "sample_configs_modadd" / "out"
THEIRS = {"lib": "rib", "pca": "pca"}
pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the paper's artefacts are not at {REFERENCE}")


def published_labels(seed: int, method: str) -> dict[str, list]:
    imported = REFERENCE / f"seed{seed}" / f"{method}_labels.json"
    if imported.is_file():
        return json.loads(imported.read_text())
    labels = labels_of(OUT / f"modular_arithmetic_{THEIRS[method]}_seed{seed}_labels.csv", NODE_LAYERS)
    if labels is None:
        pytest.skip(f"no published labels at {OUT}")
    return labels


def frequencies(label: str) -> set[int]:
    """`cos(15x) + cos(15y)`, `cos(15(x+y))`: every number that multiplies x or y, 1 where there is none."""
    if label == "constant":
        return set()
    terms = re.sub(r"(\d*)\(x([+−])y\)", r"\1x\2\1y", label.replace("cos(", "").replace("sin(", ""))
    return {int(number or 1) for number in re.findall(r"(?<!\d)(\d*)[xy]", terms)}


@pytest.mark.parametrize(("seed", "method"), RUNS)
def test_a_feature_of_one_frequency_is_named_by_it(seed: int, method: str) -> None:
    """Wherever one published term has three fifths of a feature that matters."""
    bases = fit(seed, method).bases
    ours = model(seed).label_features(model(seed).chain(torch.float64), bases)
    compared = 0
    for layer in (PRE, MID, POST):
        importance = published(seed, method).get(f"importance/{layer}", bases[layer].importance)
        matters = int((importance[1:] > 1e-3 * importance[1]).sum())
        for index, terms in enumerate(published_labels(seed, method)[layer][1 : matters + 1], start=1):
            if terms[0]["share"] >= 0.6:
                compared += 1
                assert frequencies(terms[0]["term"]) <= frequencies(ours[layer][index]), (layer, index, terms[:2])
    assert compared >= 15


def test_frequencies_are_read_from_labels() -> None:
    assert frequencies("cos(15x) + cos(15y)") == {15}
    assert frequencies("cos(x+y) + cos(18(x−y))") == {1, 18}
    assert frequencies("cos(24x - 8y)") == {24, 8}
    assert frequencies("constant") == set()
