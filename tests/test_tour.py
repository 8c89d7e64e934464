"""The notebook runs from its first cell to its last, and is committed with the outputs of such a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from libcore.constant import with_constant

NOTEBOOK = json.loads((Path(__file__).resolve().parents[1] / "docs" / "tour.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the cells have defined, run in their order in a folder of their own."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch, mpl.rc_context():
        mpl.use("agg")
        patch.chdir(tmp_path_factory.mktemp("tour"))
        for number, cell in enumerate(CODE, start=1):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
        namespace["files"] = {path.name for path in Path.cwd().iterdir()}
    return namespace


def edges_needed(found: Any, tolerance: float) -> int:
    return sum(curve.needed[tolerance] for curve in found.edges.values())


class TestTour:
    def test_the_perceptron(self, names):
        needed = names["needed"]
        assert set(needed) == {"LIB", "PCA", "varimax"}
        assert needed["LIB"].test_score > 0.9
        assert edges_needed(needed["LIB"], 0.01) < edges_needed(needed["PCA"], 0.01)
        assert names["lib"].bases["4"].n_features < names["pca"].bases["4"].n_features

    def test_a_basis_of_one_s_own(self, names):
        varimax, pca = names["turned"].bases["0"], names["pca"].bases["0"]
        assert varimax.n_features == pca.n_features
        inputs = names["x"].double()[:, None]
        activation = with_constant(inputs)
        rebuilt = varimax.activation(varimax.features(activation))
        assert (rebuilt - activation).abs().max() < 1e-10
        assert (varimax.to_basis - pca.to_basis).abs().max() > 0.1

    def test_what_is_saved(self, names):
        assert names["files"] == {"graph.safetensors"}
        assert (names["again"].edges["2"] == names["lib"].edges["2"]).all()

    def test_the_transformer(self, names):
        assert names["chain"].node_layers == ("block.ln1", "block.ln2", "unembed", "output")
        assert names["found"].test_score == 1.0
        assert 0 < edges_needed(names["found"], 0.001) < 1000

    def test_it_is_committed_as_it_ran(self):
        assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
        kinds = [output["output_type"] for cell in CODE for output in cell["outputs"]]
        assert "error" not in kinds
        printing = [cell for cell in CODE if "print(" in "".join(cell["source"])]
        assert all(cell["outputs"] for cell in printing)
        said = "".join("".join(output.get("text", ())) for cell in CODE for output in cell["outputs"])
        assert "add of the plain number 1, which may be a bias" in said
