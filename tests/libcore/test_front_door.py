"""What `libcore` offers by name: all of it there, nothing imported before it is used, `fit` equal to its pieces."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import AMPLE, random_activation, random_chain
from torch import Generator, nn

import libcore
from libcore import Chain, InteractionGraph, Truncation, ablate, accuracy, fit, interaction_edges, method
from libcore.ablation import AblationCurve
from libcore.basis import identity_basis
from libcore.estimators.stochastic import Probes
from libcore.fit_settings import FitSettings
from libcore.methods import METHODS
from libcore.quadrature import Quadrature
from libcore.statistics import chain_statistics

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", libcore.__all__)
def test_every_name_is_there_documented_and_lives_where_it_says(name: str) -> None:
    found = getattr(libcore, name)
    assert found is getattr(sys.modules[libcore.HOMES[name]], name)
    assert found.__doc__
    assert name in dir(libcore)


def test_what_the_contract_promises_is_offered() -> None:
    assert {"Chain", "InteractionGraph", "ablate", "fit", "method", "METHODS"} <= set(libcore.__all__)


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match=r"module 'libcore' has no attribute 'Chains'.*Chain, "):
        libcore.Chains  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, libcore; dir(libcore); loaded = {'torch', 'numpy', 'safetensors'} & set(sys.modules);"
        "from libcore import Basis; print(sorted(loaded), 'torch' in sys.modules, 'libcore.chain' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] True False"


@pytest.mark.parametrize(
    ("name", "settings", "options"),
    [
        ("lib", {}, {}),
        ("lib", {"integration": "gauss_legendre", "n_points": 3}, {"jacobian": "path"}),
        ("lib", {"estimator": "stochastic", "probes": Probes(4, seed=3)}, {}),
        ("pca", {"integration": "trapezoidal", "n_points": 4, "truncation": Truncation("relative", 0.1)}, {}),
        ("random", {"seed": 5}, {}),
    ],
)
def test_fit_is_its_pieces(generator: Generator, name: str, settings: dict, options: dict) -> None:
    chain, inputs = random_chain(generator), random_activation(generator, 8, 3, 4)
    graph = fit(chain, inputs, name, memory_budget=AMPLE, **settings, **options)
    quadrature = Quadrature.of(settings.get("integration", "gradient"), settings.get("n_points", 10))
    estimator, probes = settings.get("estimator", "auto"), settings.get("probes", Probes())
    by_hand = FitSettings(
        truncation=settings.get("truncation", Truncation()),
        quadrature=quadrature,
        estimator=estimator,
        memory_budget=AMPLE,
        seed=settings.get("seed", 0),
        probes=probes,
    )
    statistics = chain_statistics(chain, inputs, AMPLE)
    bases = METHODS[name](chain, inputs, statistics, by_hand, **options)
    edges = interaction_edges(chain, inputs, bases, quadrature, estimator, AMPLE, probes)
    assert graph.node_layers == chain.node_layers == tuple(bases)
    for layer in chain.node_layers:
        assert torch.equal(graph.statistics[layer].gram, statistics[layer].gram)
        assert torch.equal(graph.bases[layer].to_basis, bases[layer].to_basis)
        assert torch.equal(graph.bases[layer].importance, bases[layer].importance)
    assert list(graph.edges) == list(edges)
    for layer, strengths in edges.items():
        assert torch.equal(graph.edges[layer], strengths)
    assert graph.metadata["method"] == name
    assert json.loads(graph.metadata["options"]) == options
    assert json.loads(graph.metadata["versions"]) == {"torch": importlib.metadata.version("torch")}


def test_fit_takes_a_function_made_a_method(generator: Generator) -> None:
    @method("neurons", label="plain neurons", sorts_by="nothing")
    def fit_neurons(chain, inputs, statistics, settings, *, scale: float) -> dict[str, libcore.Basis]:
        ones = {layer: torch.full_like(of.mean, scale) for layer, of in statistics.items()}
        return {layer: identity_basis(one, chain.has_constant(layer)) for layer, one in ones.items()}

    chain, inputs = random_chain(generator), random_activation(generator, 6, 3, 4)
    graph = fit(chain, inputs, fit_neurons, scale=2.0)
    assert graph.metadata["method"] == "neurons"
    assert graph.bases["before"].importance.tolist() == [2.0] * 4
    with pytest.raises(ValueError, match=r"^scale: method neurons needs it"):
        fit(chain, inputs, fit_neurons)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"method": "lob"}, r"^lob: no such method \(did you mean lib\?\); expected one of file, gradient_pca, "),
        ({"jacobean": "path"}, r"^jacobean: method lib has no such option \(did you mean jacobian\?\); expected jac"),
        ({"method": "pca", "jacobian": "path"}, "^jacobian: method pca has no such option; expected none"),
        ({"method": "file"}, "^path: method file needs it; expected path="),
        ({"jacobian": "path"}, "path with .*gradient has no path; expected trapezoidal or gauss_legendre"),
        ({"integration": "trapezoidal", "n_points": 0}, "^n_points=0: an integration rule needs at least one point"),
    ],
)
def test_fit_refuses_before_anything_is_computed(generator: Generator, arguments: dict, expected: str) -> None:
    def embed(inputs: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it was computed")

    section = random_chain(generator).sections[-1]
    chain = Chain(("before", "output"), (section,), embed, last_has_constant=False)
    with pytest.raises(ValueError, match=expected) as raised:
        fit(chain, torch.zeros(2, 3), **arguments)
    assert "\n" not in str(raised.value)


def test_the_whole_use_on_one_s_own_network(generator: Generator, tmp_path: Path) -> None:
    """From a module to its graph, a file, and how much of it the network needs."""
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    labels = net(inputs).argmax(1)
    chain = Chain.from_module(net, inputs[:2])
    graph = fit(chain, inputs[:40])
    graph.save(tmp_path / "graph.safetensors")
    loaded = InteractionGraph.load(tmp_path / "graph.safetensors")
    assert loaded.node_layers == graph.node_layers == ("0", "2", "output")
    assert loaded.metadata == graph.metadata
    for layer in ("0", "2"):
        assert torch.equal(loaded.edges[layer], graph.edges[layer])
        assert torch.equal(loaded.bases[layer].to_basis, graph.bases[layer].to_basis)
    data = accuracy(inputs[40:], labels[40:])
    found, again = (ablate(one, chain, data, tolerances=(0.0, 0.5)) for one in (graph, loaded))
    assert found == again
    assert found.test_score == 1.0
    for curve in (*found.nodes.values(), *found.edges.values()):
        assert isinstance(curve, AblationCurve)
        assert 1 <= curve.needed[0.5] < curve.needed[0.0]
        assert curve.score_by_kept[curve.needed[0.0]] == 1.0
    assert list(found.edges) == ["0", "2"]
