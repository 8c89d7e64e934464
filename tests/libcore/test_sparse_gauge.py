"""`lib_sparse`: what a gauge may not change, and that few edges are found where there are few."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_models import (
    AMPLE,
    keeping_constant,
    largest_difference,
    random,
    random_activation,
    random_chain,
    random_orthogonal,
)
from torch import Generator, Tensor

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.constant import with_constant
from libcore.eigen import Truncation, isolated_columns
from libcore.estimators import jacobian_gram
from libcore.fit_settings import FitSettings
from libcore.gauge.choice import OwnPredictions, fewest_edges, needed_edges
from libcore.graph import interaction_edges
from libcore.methods import METHODS
from libcore.methods.lib import lib_towards
from libcore.methods.lib_sparse import centred, weights_of
from libcore.quadrature import GRADIENT, Quadrature
from libcore.sections import AffineSection, ResidualElementwiseSection
from libcore.statistics import chain_statistics

SETTINGS = FitSettings(truncation=Truncation("absolute", 1e-12), memory_budget=AMPLE)
LAYERS = ("before", "middle", "after")


@pytest.fixture
def chain(generator: Generator) -> Chain:
    return random_chain(generator)


@pytest.fixture
def inputs(generator: Generator) -> Tensor:
    return random_activation(generator, 60, 3, 4)


def hidden_chain(generator: Generator, d: int = 4) -> Chain:
    """Every coordinate goes through the model by itself, but activations are those coordinates turned at random."""
    turns = [random_orthogonal(generator, d) for _ in range(3)]
    sections = [
        ResidualElementwiseSection(
            keeping_constant(torch.zeros(d + 1, d + 1).double()),
            torch.block_diag(2 * before.T, torch.zeros(1, 0))[:, :d],
            torch.cat([after, torch.zeros(d, 1).double()], 1),
            torch.tanh,
        )
        for before, after in pairwise(turns)
    ]
    to_logits = AffineSection(torch.cat([turns[2].T, torch.zeros(1, d).double()]))
    return Chain(
        (*LAYERS, "output"), (*sections, to_logits), lambda inputs: with_constant(inputs @ turns[0])[:, None], False
    )


def sparse(chain: Chain, inputs: Tensor, settings: FitSettings = SETTINGS, **options: object) -> dict[str, Basis]:
    statistics = chain_statistics(chain, inputs, AMPLE)
    return METHODS["lib_sparse"](chain, inputs, statistics, settings, **{"steps": 20, "threshold": 0.0} | options)


def on_the_fit_part(chain: Chain, inputs: Tensor, seed: int = 0) -> tuple[dict[str, Basis], Tensor]:
    """LIB of the inputs that are not kept back, and those."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    to_fit = inputs[order[round(0.3 * len(inputs)) :]]
    moments = chain_statistics(chain, to_fit, AMPLE)
    last = identity_basis(moments["output"].gram.diagonal().clone(), has_constant=False)
    return lib_towards(last, chain, to_fit, moments, SETTINGS), to_fit


class TestWhatAGaugeMayNotChange:
    @pytest.fixture(params=["lib", "whitened", "free"])
    def gauge(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def mixed(self, monkeypatch: pytest.MonkeyPatch, chain: Chain, inputs: Tensor, gauge: str) -> dict[str, Basis]:
        """The last candidate, whether it is chosen or not: LIB mixed from a random start."""
        monkeypatch.setattr("libcore.methods.lib_sparse.fewest_edges", lambda chain, candidates, *rest: candidates[-1])
        return sparse(chain, inputs, gauge=gauge, centred_logits=False)

    @pytest.fixture
    def lib(self, chain: Chain, inputs: Tensor) -> dict[str, Basis]:
        return on_the_fit_part(chain, inputs)[0]

    def test_features_are_others(self, mixed: dict[str, Basis], lib: dict[str, Basis]) -> None:
        for layer in LAYERS:
            assert largest_difference(mixed[layer].to_basis, lib[layer].to_basis) > 1e-2

    def test_the_span(self, mixed: dict[str, Basis], lib: dict[str, Basis], chain: Chain, inputs: Tensor) -> None:
        """And with it the model with all features kept."""
        for index, layer in enumerate(LAYERS):
            one, other = mixed[layer], lib[layer]
            assert largest_difference(one.to_basis @ one.from_basis, other.to_basis @ other.from_basis) < 1e-9
            assert largest_difference(one.from_basis @ one.to_basis, torch.eye(one.n_features).double()) < 1e-9
            activation = chain.activation(inputs, index)
            rebuilt = chain.output_from(one.keep_first(activation, one.n_features), index)
            assert largest_difference(rebuilt, chain.output_from(activation, index)) < 1e-8

    def test_the_constant_feature(self, mixed: dict[str, Basis], lib: dict[str, Basis]) -> None:
        for layer in LAYERS:
            assert torch.equal(mixed[layer].to_basis[:, 0], lib[layer].to_basis[:, 0])
            assert mixed[layer].importance[0] == lib[layer].importance[0]

    def test_importance_is_sorted_and_its_sum_that_of_lib(
        self, mixed: dict[str, Basis], lib: dict[str, Basis], chain: Chain, inputs: Tensor, gauge: str
    ) -> None:
        _, to_fit = on_the_fit_part(chain, inputs)
        for index, layer in enumerate(LAYERS):
            basis = mixed[layer]
            importance = basis.importance[1 : basis.n_features]
            assert (importance.diff() <= 0).all()
            features = basis.features(chain.activation(to_fit, index)).flatten(0, 1)[:, 1:]
            assert largest_difference(importance, features.var(0, correction=0)) < 1e-9
            if gauge != "free":
                assert largest_difference(importance.sum(), lib[layer].importance[1:].sum()) < 1e-9

    def test_the_jacobian_gram(
        self, mixed: dict[str, Basis], lib: dict[str, Basis], chain: Chain, inputs: Tensor, gauge: str
    ) -> None:
        """The identity in LIB's gauge, whichever gauge of LIB's the next layer is in; elsewhere 1 on its diagonal."""
        _, to_fit = on_the_fit_part(chain, inputs)
        for index, layer in enumerate(LAYERS):
            after = ("middle", "after", "output")[index]
            next_basis = (mixed if gauge == "lib" else lib)[after]
            stream = chain.streams(to_fit, AMPLE)[index]
            back = mixed[layer].from_basis[1:]
            gram = back @ jacobian_gram(chain.sections[index], stream, next_basis, GRADIENT) @ back.T
            assert largest_difference(gram.diagonal(), torch.ones(len(gram)).double()) < 1e-8
            if gauge == "lib":
                assert largest_difference(gram, torch.eye(len(gram)).double()) < 1e-8

    def test_what_is_dropped_stays_listed(self, mixed: dict[str, Basis], lib: dict[str, Basis]) -> None:
        for layer in LAYERS:
            kept = lib[layer].n_features
            assert torch.equal(mixed[layer].importance[kept:], lib[layer].importance[kept:])


class TestHiddenSparseBasis:
    def test_is_found_where_lib_does_not_tell_it(self, generator: Generator) -> None:
        """Coordinates alike: their importances tie, so that LIB's features are any mixture of them."""
        chain, inputs = hidden_chain(generator), random(generator, 400, 4)
        bases = sparse(chain, inputs, steps=60)
        lib, to_fit = on_the_fit_part(chain, inputs)
        predictions = OwnPredictions.of(chain, random(generator, 500, 4), SETTINGS)
        found, of_lib = (needed_edges(chain, some, to_fit, predictions, SETTINGS) for some in (bases, lib))
        assert found[:, 2].tolist() == [4, 4, 4]
        assert (of_lib[:, 2] > 10).all()
        hidden = chain.activation(inputs, 1) @ torch.cat([chain.sections[1].weight_in, torch.zeros(5, 1).double()], 1)
        features = bases["middle"].features(chain.activation(inputs, 1))[:, 0, 1:]
        correlation = torch.corrcoef(torch.cat([features, hidden[:, 0, :4]], 1).T)[:4, 4:].abs()
        assert (correlation.amax(1) > 0.98).all()

    def test_lib_is_kept_where_nothing_is_sparser(self, generator: Generator) -> None:
        chain, inputs = hidden_chain(generator), random(generator, 300, 4)
        best = sparse(chain, inputs, steps=60)
        lib, _ = on_the_fit_part(chain, inputs)
        for order, expected in (((best, lib), best), ((lib, best), best), ((best, best | {}), best)):
            chosen = fewest_edges(chain, order, inputs[:100], inputs[100:], [1.0, 1.0, 0.1], SETTINGS)
            assert all(torch.equal(chosen[layer].to_basis, expected[layer].to_basis) for layer in LAYERS)
        assert fewest_edges(chain, (lib, dict(lib)), inputs[:99], inputs, [1.0] * 3, SETTINGS) is lib


def test_seeds_decide_everything(chain: Chain, inputs: Tensor) -> None:
    one, again, other = (sparse(chain, inputs, replace(SETTINGS, seed=seed)) for seed in (3, 3, 4))
    for layer in (*LAYERS, "output"):
        assert torch.equal(one[layer].to_basis, again[layer].to_basis)
        assert torch.equal(one[layer].importance, again[layer].importance)
    assert largest_difference(one["middle"].to_basis, other["middle"].to_basis) > 1e-3


@pytest.mark.parametrize(("gauge", "n_starts"), [("lib", 3), ("free", 3), ("chosen", 4)])
def test_how_far_the_search_is_is_told(chain: Chain, inputs: Tensor, gauge: str, n_starts: int) -> None:
    """Once after each descent and each comparison, to the very last: nothing goes on unseen."""
    told: list[tuple[str, int, int]] = []
    observed = replace(chain, on_chunk=lambda *how_far: told.append(how_far))
    statistics = chain_statistics(chain, inputs, AMPLE)
    fit = METHODS["lib_sparse"]
    fit(observed, inputs, statistics, SETTINGS, gauge=gauge, random_starts=2, steps=2, threshold=0.0)
    of_lib_and_of_centred = 2
    n_steps = of_lib_and_of_centred * n_starts + of_lib_and_of_centred * (1 + n_starts)
    assert told == [("descents and comparisons", done, n_steps) for done in range(1, n_steps + 1)]
    assert fit.searches


def test_edges_are_compared_on_as_many_positions_as_predictions(
    monkeypatch: pytest.MonkeyPatch, chain: Chain, inputs: Tensor
) -> None:
    lib, asked = on_the_fit_part(chain, inputs)[0], []

    def counted(chain: Chain, inputs: Tensor, *rest: object) -> dict[str, Tensor]:
        asked.append(len(inputs))
        return interaction_edges(chain, inputs, *rest)

    monkeypatch.setattr("libcore.gauge.choice.interaction_edges", counted)
    monkeypatch.setattr("libcore.gauge.choice.MOST_PREDICTIONS", 30)
    fewest_edges(chain, (lib, dict(lib)), inputs[:40], inputs[40:], [1.0] * 3, SETTINGS)
    assert asked == [15, 15]  # of two output positions each


def test_given_statistics_are_not_looked_at(chain: Chain, inputs: Tensor) -> None:
    """They are of inputs that are kept back to choose on, too."""
    others = chain_statistics(chain, inputs.flip(0)[:7], AMPLE)
    found = METHODS["lib_sparse"](chain, inputs, others, SETTINGS, steps=20, threshold=0.0)
    expected = sparse(chain, inputs)
    assert all(torch.equal(found[layer].to_basis, expected[layer].to_basis) for layer in LAYERS)


def test_isolated_coordinates_are_never_mixed(chain: Chain, inputs: Tensor) -> None:
    isolated = replace(chain, isolated={"middle": (1,)})
    for gauge in ("lib", "whitened", "free"):
        basis = sparse(isolated, inputs, gauge=gauge)["middle"]
        alone = isolated_columns(basis.to_basis[:, 1:], (1,))
        assert len(alone) == 1
        assert torch.nonzero(basis.to_basis[:-1, 1 + alone[0]]).flatten().tolist() == [1]


def test_features_behind_the_leading_ones_stay(chain: Chain, inputs: Tensor) -> None:
    lib, _ = on_the_fit_part(chain, inputs)
    few = sparse(chain, inputs, max_features=2, centred_logits=False, gauge="lib")
    for layer in LAYERS:
        least = lib[layer].to_basis[:, 3]
        assert min(largest_difference(column, least) for column in few[layer].to_basis.T[1:]) < 1e-12


def test_rotated_logits(monkeypatch: pytest.MonkeyPatch, chain: Chain, inputs: Tensor) -> None:
    monkeypatch.setattr("libcore.methods.lib_sparse.fewest_edges", lambda chain, candidates, *rest: candidates[-1])
    for centring in (False, True):
        output = sparse(chain, inputs, rotate_logits=True, centred_logits=centring)["output"]
        expected = torch.eye(5, dtype=torch.float64) - (1 / 5 if centring else 0)
        assert largest_difference(output.to_basis @ output.from_basis, expected) < 1e-9
        assert largest_difference(output.to_basis @ output.to_basis.T, expected) < 1e-9
        assert largest_difference(output.to_basis, expected) > 1e-2
        assert (output.importance.diff() <= 0).all()


def test_a_layer_in_which_nothing_varies(generator: Generator) -> None:
    """Its constant is its only feature; the others are mixed as ever."""
    still = AffineSection(keeping_constant(torch.zeros(4, 4).double()))
    sections = (still, AffineSection(keeping_constant(random(generator, 4, 4))), AffineSection(random(generator, 4, 5)))
    chain = Chain((*LAYERS, "output"), sections, lambda f: f, last_has_constant=False)
    bases = sparse(chain, random_activation(generator, 40, 1, 4))
    assert [bases[layer].n_features for layer in LAYERS] == [1, 1, 1]


def test_centred_logits_have_no_common_shift(generator: Generator, inputs: Tensor, chain: Chain) -> None:
    basis = centred(identity_basis(torch.ones(5).double(), has_constant=False))
    logits = random(generator, 7, 2, 5)
    assert largest_difference(basis.features(logits), logits - logits.mean(-1, keepdim=True)) < 1e-12
    assert largest_difference(basis.features(logits + 3.0), basis.features(logits)) < 1e-12
    assert largest_difference(basis.activation(basis.features(logits)), basis.features(logits)) < 1e-12


def test_edges_along_a_path_are_those_that_are_made_few(
    monkeypatch: pytest.MonkeyPatch, chain: Chain, inputs: Tensor
) -> None:
    seen = []

    def watched(node_layers, pairs, weights):
        seen.append([pair.edges() for pair in pairs])
        return original(node_layers, pairs, weights)

    from libcore.gauge.optimisation import SparsityLoss

    original = SparsityLoss.of
    monkeypatch.setattr(SparsityLoss, "of", watched)
    along = replace(SETTINGS, quadrature=Quadrature.of("trapezoidal", 3))
    sparse(chain, inputs, along, centred_logits=False)
    lib, to_fit = on_the_fit_part(chain, inputs)
    expected = interaction_edges(chain, to_fit, lib, along.quadrature)
    for layer, edges in zip(LAYERS, seen[0], strict=True):
        variable = expected[layer][int(layer != "after") :, 1:]
        assert largest_difference(edges, variable) < 1e-9


def test_weights_by_the_number_of_edges(chain: Chain) -> None:
    leading = {layer: torch.arange(n) for layer, n in zip((*LAYERS, "output"), (2, 3, 4, 9), strict=True)}
    assert weights_of(chain, leading) == [1.0, 1.0, (6 + 12) / 2 / 36]
    assert weights_of(chain, leading | {"output": torch.arange(1)}) == [1.0, 1.0, 1.0]
    short = chain.restricted_to(("after", "output"))
    assert weights_of(short, leading) == [1.0]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"choose_share": 0.0}, r"^choose_share=0.0 of the inputs; expected a number between 0 and 1$"),
        ({"choose_share": 1.0}, "^choose_share=1.0 of the inputs; expected"),
        ({"threshold": 1.0}, "^threshold=1.0 of the largest importance; expected a number from 0 to below 1$"),
        ({"n_inputs": 0}, "^n_inputs=0; expected a whole number from 1 to 2147483647$"),
        ({"n_positions": 0}, "^n_positions=0; expected a whole number from 1 to 2147483647$"),
        ({"max_features": 0}, "^max_features=0; expected a whole number from 1 to 2147483647$"),
        ({"steps": 0}, "^steps=0; expected a whole number from 1 to 2147483647$"),
        ({"random_starts": -1}, "^random_starts=-1; expected a whole number from 0 to 1000$"),
        ({"weights": [1.0, -1.0]}, r"^weights=\[1.0, -1.0\]; expected numbers of at least 0"),
        ({"weights": [0.0, 0.0]}, r"^weights=\[0.0, 0.0\]; expected numbers of at least 0"),
        ({"gauge": "white"}, "^gauge='?white'?"),
    ],
)
def test_options_that_make_no_sense(options: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        METHODS["lib_sparse"].refuse(FitSettings(), options)


def test_what_does_not_suit_the_model(chain: Chain, inputs: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^weights=\[1.0\]: 1; expected 3, one for each layer pair$"):
        sparse(chain, inputs, weights=[1.0])
    with pytest.raises(
        ValueError, match=r"^choose_share=0.001 of 60 inputs: 0 to choose on and 60 to fit on; expected"
    ):
        sparse(chain, inputs, choose_share=0.001)
