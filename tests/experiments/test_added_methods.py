"""A method joins from outside the source tree by one file and one YAML file; a basis of another tool by its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from running import (
    MID,
    OUTPUT,
    POST,
    PRE,
    QUICK,
    TOY,
    assert_same_tensors,
    command,
    config_of,
    read_json,
    run_here,
    tensors_of,
)
from safetensors.torch import save_file
from sklearn.decomposition import FastICA
from torch import Tensor

from experiments.figures import saving
from experiments.figures.groups import group_label
from experiments.pipeline.estimator_timings import chain_and_inputs
from experiments.reporting.comparison import compare
from experiments.reporting.finished_runs import FinishedRun
from experiments.reporting.report_files import write_report

SOURCE = '''
import torch

from libcore.basis import Basis
from libcore.methods import METHODS, method


@method("backwards", label="PCA backwards", sorts_by="variance, least first")
def fit_backwards(chain, inputs, statistics, settings, *, n_layers: int):
    """The first layers' principal directions, the one of least variance first."""
    bases = METHODS["pca"](chain, inputs, statistics, settings)
    for layer in chain.node_layers[:n_layers]:
        basis = bases[layer]
        order = torch.cat([torch.zeros(1).long(), torch.arange(1, basis.n_features).flip(0)])
        bases[layer] = Basis(basis.to_basis[:, order], basis.from_basis[order], basis.importance[order], True)
    return bases
'''
OPTION = """
name: backwards
function: my_methods:fit_backwards
label: Least first
n_layers: 2
"""


class TestByOneFileAndOneYaml:
    def test_it_is_run_measured_and_reported_under_its_label(self, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "my_methods.py").write_text(SOURCE)
        (tmp_path / "my_conf" / "method").mkdir(parents=True)
        (tmp_path / "my_conf" / "method" / "mine.yaml").write_text(OPTION)
        layers = f"analysis.node_layers=[{PRE},{POST},{OUTPUT}]"
        done = command(tmp_path, "--config-dir=my_conf", "method=mine", *TOY, layers, "tracking.mode=disabled")
        assert done.returncode == 0, done.stderr
        (run,) = (path.parent for path in tmp_path.glob("outputs/*/*/*/*/status.json"))
        tensors, metrics = tensors_of(run), read_json(run / "metrics.json")
        for layer in (PRE, POST):
            variance = tensors[f"importance/{layer}"][1:]
            assert (variance[:-1] <= variance[1:]).all()
            assert metrics[f"edges/needed_0.05/{layer}"] > 0
        page = (run / "figures" / "graph.html").read_text(encoding="utf-8")
        assert "Least first" in page
        # The figures of the report are those of a run, over all of its runs.
        drawn: list[set[str]] = []
        save_figure = saving.save_figure

        def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
            drawn.append({text.get_text() for text in figure.findobj(Text)})
            return save_figure(figure, folder, stem)

        monkeypatch.setattr(saving, "save_figure", save)
        report = write_report([run], tmp_path / "report")
        assert report.unfinished == []
        text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
        assert "| metric | Least first (n = 1) |" in text
        assert len(drawn) > 3
        assert all(any("Least first" in words for words in figure) for figure in drawn)


@pytest.fixture
def activations(quick: Path) -> dict[str, Tensor]:
    """What the quick run's bases were fitted on, `[sample, d]` without the constant coordinate, by node layer."""
    chain, inputs = chain_and_inputs(config_of(*QUICK, f"output_directory={quick.parents[1]}"), None)
    layers = zip(chain.node_layers[:-1], chain.activations(inputs), strict=False)
    return {layer: activation[..., :-1].flatten(0, 1) for layer, activation in layers}


class TestBasisOfAnotherTool:
    def file_run(self, quick: Path, name: str, path: Path, *overrides: str) -> Path:
        return run_here(quick.parents[1], name, *QUICK, "method=file", f"method.path={path}", *overrides)

    def test_a_run_s_own_graph_gives_its_results_bit_for_bit(self, quick: Path) -> None:
        run = self.file_run(quick, "own_graph", quick / "graph.safetensors")
        found, expected = tensors_of(run), tensors_of(quick)
        # A basis from a file is the same however often it is read: nothing moves.
        others = ("importance/", "moved", "group/")
        kept = {name: tensor for name, tensor in expected.items() if not name.startswith(others)}
        assert_same_tensors({name: found[name] for name in kept}, kept)
        assert {name.partition("/")[0] for name in found} == {name.partition("/")[0] for name in expected}
        assert read_json(run / "ablations.json") == read_json(quick / "ablations.json")

    def test_independent_components_of_scikit_learn(
        self, quick: Path, activations: dict[str, Tensor], tmp_path: Path
    ) -> None:
        """FastICA as its own arrays have it: features `(f - mean_) @ components_.T` of unit variance, uncorrelated."""
        tensors: dict[str, Tensor] = {}
        for layer, activation in activations.items():
            ica = FastICA(n_components=4, whiten="unit-variance", random_state=0, max_iter=2000, tol=0.01)
            ica.fit(activation.numpy())
            tensors[f"to_basis/{layer}"] = torch.from_numpy(ica.components_.T.copy())
            tensors[f"from_basis/{layer}"] = torch.from_numpy(ica.mixing_.T.copy())
            tensors[f"mean/{layer}"] = torch.from_numpy(ica.mean_)
        save_file(tensors, tmp_path / "ica.safetensors")
        run = self.file_run(quick, "ica", tmp_path / "ica.safetensors", "method.label=FastICA")
        graph, metrics = tensors_of(run), read_json(run / "metrics.json")
        for layer in (PRE, MID, POST):
            features = torch.cat([activations[layer], torch.ones(len(activations[layer]), 1)], dim=1).double()
            features = features @ graph[f"to_basis/{layer}"]
            covariance = torch.cov(features[:, 1:].T, correction=0)
            torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-6)
            assert metrics[f"features/kept/{layer}"] == 5
            assert graph[f"edges/{layer}"].shape[1] == 5
        runs = [
            FinishedRun(path, yaml.safe_load((path / "config.yaml").read_text()), read_json(path / "metrics.json"))
            for path in (run, quick)
        ]
        compared = compare(runs)
        assert [group_label(group) for group in compared.methods] == ["LIB", "FastICA"]
        assert compared.rows[f"features/kept/{PRE}"]["FastICA"].values == (5,)
