"""Contexts, histograms and logit effects of a language model's features, against loops over every token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from libcore.basis import Basis, identity_basis
from libcore.chain import Chain
from libcore.sections import AffineSection, ComposedSection, FunctionSection, Section
from models.analysed import QUANTILES, Contexts, LayerContexts
from models.transformer import contexts
from models.transformer.contexts import token_contexts_of
from models.transformer.logit_effects import N_ACTIVATIONS, logit_effects, unembedding_of

N, LENGTH, VOCABULARY, WIDTH = 17, 23, 11, 5
AMPLE = 2**24
TEXTS = tuple(f"<{index}>" for index in range(VOCABULARY))


def tokens_of(seed: int = 0, n: int = N, length: int = LENGTH) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=Generator().manual_seed(seed))


def normalised(stream: Tensor) -> Tensor:
    centred = stream[..., :-1] - stream[..., :-1].mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 0.1).rsqrt()
    return torch.cat([centred * scale, stream[..., -1:]], -1)


def language_chain(seed: int = 1, dtype: torch.dtype = torch.float64, with_logits: bool = False) -> Chain:
    """Embeddings, a block that mixes earlier positions in, a wider node layer, the final residual stream, logits."""
    generator = Generator().manual_seed(seed)
    embedding, mixing, reading, widening = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((VOCABULARY, WIDTH), (WIDTH + 1, WIDTH), (WIDTH + 1, VOCABULARY), (WIDTH + 1, 3))
    )
    narrowing = functional.pad(torch.eye(WIDTH, dtype=dtype), (0, 1, 0, 4))
    narrowing[-1, -1] = 1.0
    narrowing[WIDTH, 0] = 0.5

    def head(tokens: Tensor) -> Tensor:
        embedded = embedding[tokens]
        # The sequence's mean beside the token, lest equal tokens tie for the first place.
        return functional.pad(embedded + embedded.mean(1, keepdim=True), (0, 1), value=1.0)

    def block(stream: Tensor) -> Tensor:
        return stream + functional.pad(torch.tanh(stream.cumsum(1) @ mixing / 5), (0, 1))

    def wider(stream: Tensor) -> Tensor:
        return torch.cat([stream[..., :-1], torch.tanh(stream @ widening), stream[..., -1:]], -1)

    unembedding = FunctionSection(lambda stream: normalised(stream) @ reading)
    sections: tuple[Section, ...] = (FunctionSection(block), FunctionSection(wider), AffineSection(narrowing))
    layers = (
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_mid",
        "blocks.0.mlp.hook_post",
        "blocks.0.hook_resid_post",
    )
    if with_logits:
        return Chain((*layers, "output"), (*sections, unembedding), head, last_has_constant=False)
    return Chain(layers, sections, head, last_has_constant=True, tail=unembedding)


def bases_of(chain: Chain, seed: int = 2) -> dict[str, Basis]:
    """Random directions; feature 0 is the constant where there is one."""
    generator, bases = Generator().manual_seed(seed), {}
    for index, layer in enumerate(chain.node_layers):
        activation = chain.activation(tokens_of()[:1], index)
        d = activation.shape[-1]
        if not chain.has_constant(layer):
            bases[layer] = identity_basis(torch.ones(d, dtype=activation.dtype), has_constant=False)
            continue
        matrix = torch.randn(d, d - 1, generator=generator, dtype=activation.dtype)
        matrix[:, 0] = torch.eye(d, dtype=activation.dtype)[-1]
        bases[layer] = Basis(matrix, torch.linalg.pinv(matrix), torch.ones(d - 1).double(), has_constant=True)
    return bases


def found_in(chain: Chain, tokens: Tensor, memory_budget: int = AMPLE) -> dict[str, LayerContexts]:
    return token_contexts_of(tokens, TEXTS, memory_budget)(chain, bases_of(chain)).by_layer


def slow_contexts(feature: Tensor, sign: int) -> list[tuple[int, int, list[float]]]:
    """Sequence, position and window of the most extreme tokens, by looking at every one."""
    best = []
    for sequence, values in enumerate(feature.tolist()):
        position = max(range(len(values)), key=lambda index: sign * values[index])
        best.append((sign * values[position], sequence, position))
    rows = []
    for _, sequence, position in sorted(best, reverse=True)[: contexts.N_CONTEXTS]:
        around = range(position - contexts.BEFORE, position + contexts.AFTER + 1)
        values = feature[sequence].tolist()
        rows.append((sequence, position, [values[i] if 0 <= i < len(values) else math.nan for i in around]))
    return rows


def assert_contexts(found: Contexts, feature: int, expected: list[tuple[int, int, list[float]]]) -> None:
    assert found.sequences[feature].tolist() == [sequence for sequence, _, _ in expected]
    assert found.positions[feature].tolist() == [position for _, position, _ in expected]
    windows = torch.tensor([window for _, _, window in expected])
    torch.testing.assert_close(found.activations[feature], windows, equal_nan=True, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_budget", [1, 60_000, AMPLE])
def test_contexts_are_those_that_a_search_of_every_token_finds(memory_budget: int) -> None:
    chain, tokens = language_chain(), tokens_of()
    by_layer = found_in(chain, tokens, memory_budget)
    assert tuple(by_layer) == chain.node_layers
    for index, (layer, basis) in enumerate(bases_of(chain).items()):
        features, found = basis.features(chain.activation(tokens, index)), by_layer[layer]
        assert found.first == 1
        assert len(found.highest.sequences) == basis.n_features - 1
        for feature in range(basis.n_features - 1):
            assert_contexts(found.highest, feature, slow_contexts(features[..., feature + 1], 1))
            assert_contexts(found.lowest, feature, slow_contexts(features[..., feature + 1], -1))


@pytest.mark.parametrize("memory_budget", [1, AMPLE])
def test_quantiles_and_common_places_are_those_of_the_sorted_activations(memory_budget: int) -> None:
    chain, tokens = language_chain(), tokens_of()
    layer = "blocks.0.hook_resid_mid"
    features = bases_of(chain)[layer].features(chain.activation(tokens, 1))[..., 1:]
    found = found_in(chain, tokens, memory_budget)[layer]
    assert len(found.quantiles) == len(QUANTILES)
    for quantile, of_quantile in zip(QUANTILES, found.quantiles, strict=True):
        for feature in range(features.shape[-1]):
            values = features[..., feature]
            rank = round(quantile * (values.numel() - 1))
            expected = values.flatten().sort().values[[rank + 1, rank, rank - 1]]
            places = of_quantile.sequences[feature], of_quantile.positions[feature]
            torch.testing.assert_close(values[places], expected)
            torch.testing.assert_close(of_quantile.activations[feature, :, contexts.BEFORE].double(), expected)
    common = features[: contexts.COMMON_SEQUENCES, : contexts.COMMON_TOKENS].permute(2, 0, 1)
    torch.testing.assert_close(found.common.double(), common, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_budget", [1, AMPLE])
def test_histogram_and_moments_count_every_token_once(memory_budget: int) -> None:
    chain, tokens = language_chain(), tokens_of()
    found = found_in(chain, tokens, memory_budget)["blocks.0.hook_resid_mid"]
    features = bases_of(chain)["blocks.0.hook_resid_mid"].features(chain.activation(tokens, 1))[..., 1:].flatten(0, 1)
    torch.testing.assert_close(found.mean, features.mean(0))
    torch.testing.assert_close(found.standard_deviation, features.std(0, correction=0))
    assert found.histogram.sum(1).tolist() == [tokens.numel()] * features.shape[1]
    for counts, values in zip(found.histogram, features.T, strict=True):
        expected = torch.histc(values, contexts.N_BINS)
        assert (counts - expected).abs().sum() <= 2, "a value on a bin's edge may fall on either side in float32"


def test_a_feature_that_never_varies_falls_into_one_bin() -> None:
    chain, tokens = language_chain(), tokens_of()
    bases = bases_of(chain)
    layer = chain.node_layers[0]
    bases[layer] = Basis(torch.zeros(WIDTH + 1, 1).double(), torch.ones(1, WIDTH + 1).double(), torch.ones(1), False)
    found = token_contexts_of(tokens, TEXTS, AMPLE)(chain, bases).by_layer[layer]
    assert found.histogram[0].max() == tokens.numel()
    assert found.standard_deviation.tolist() == [0.0]


def test_only_the_first_sequences_and_features_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "N_SEQUENCES", 3)
    monkeypatch.setattr(contexts, "N_FEATURES", 2)
    chain, tokens = language_chain(), tokens_of()
    described = token_contexts_of(tokens, TEXTS, AMPLE)(chain, bases_of(chain))
    assert described.tokens.equal(tokens[:3])
    for found in described.by_layer.values():
        assert found.highest.sequences.shape == (2, 3)
        assert found.histogram.sum(1).tolist() == [3 * LENGTH] * 2
        assert sorted(found.lowest.sequences[0].tolist()) == [0, 1, 2]


def final_streams(chain: Chain, tokens: Tensor) -> Tensor:
    """What the derivative is to be averaged over: evenly spread over sequences and positions."""
    stream = chain.activation(tokens, chain.node_layers.index("blocks.0.hook_resid_post"))
    sequences = [int(i * (len(tokens) - 1) / (N_ACTIVATIONS - 1)) for i in range(N_ACTIVATIONS)]
    positions = [int(i * (LENGTH - 1) / (N_ACTIVATIONS - 1)) for i in range(N_ACTIVATIONS)]
    return torch.stack([stream[row, position] for row, position in zip(sequences, positions, strict=True)])


@pytest.mark.parametrize("with_logits", [False, True])
@pytest.mark.parametrize("memory_budget", [1, AMPLE])
def test_logit_effects_are_the_unembedding_s_slope_along_the_feature(with_logits: bool, memory_budget: int) -> None:
    chain, tokens = language_chain(with_logits=with_logits), tokens_of()
    by_layer, bases = found_in(chain, tokens, memory_budget), bases_of(chain)
    unembed = chain.sections[-1] if chain.tail is None else chain.tail
    streams = final_streams(chain, tokens)[:, None]
    for index, layer in enumerate(chain.node_layers[:4]):
        effects, deviations = (
            by_layer[layer].effects,
            bases[layer].features(chain.activation(tokens, index)).flatten(0, 1),
        )
        assert effects is not None
        for feature in range(1, bases[layer].n_features):
            step = functional.pad(bases[layer].from_basis[feature, :WIDTH], (0, 1)) * 1e-5
            slope = (unembed(streams + step) - unembed(streams - step)).mean((0, 1)) / 2e-5
            slope = (slope - slope.mean()) * deviations[:, feature].std(correction=0)
            for tokens_at, values, order in (
                (effects.raised, effects.raised_by, slope.argsort(descending=True)),
                (effects.lowered, effects.lowered_by, slope.argsort()),
            ):
                assert tokens_at[feature - 1].tolist() == order[: contexts.N_TOKENS].tolist()
                torch.testing.assert_close(values[feature - 1], slope[order[: contexts.N_TOKENS]], rtol=1e-6, atol=1e-8)
    assert with_logits == ("output" in by_layer)
    if with_logits:
        assert by_layer["output"].effects is None
        assert by_layer["output"].first == 0


def test_effects_pass_by_the_blocks_when_later_node_layers_are_left_out() -> None:
    chain, tokens = language_chain(), tokens_of()
    shorter = chain.restricted_to(chain.node_layers[1:3])
    assert isinstance(shorter.tail, ComposedSection)
    of_all, of_two = unembedding_of(chain, tokens), unembedding_of(shorter, tokens)
    torch.testing.assert_close(of_two.activations, of_all.activations)
    basis = bases_of(chain)[chain.node_layers[1]]
    ones = torch.ones(basis.n_features).double()
    one, other = (logit_effects(unembedding, basis, ones, 4, AMPLE) for unembedding in (of_all, of_two))
    assert one.raised.equal(other.raised)
    torch.testing.assert_close(one.lowered_by, other.lowered_by)


def test_a_model_in_float32_has_the_same_contexts_and_effects() -> None:
    double, bases = language_chain(), bases_of(language_chain())
    find, layer = token_contexts_of(tokens_of(), TEXTS, AMPLE), "blocks.0.hook_resid_mid"
    of_double, of_single = (
        find(chain, bases).by_layer[layer] for chain in (double, language_chain(dtype=torch.float32))
    )
    assert of_single.highest.sequences.equal(of_double.highest.sequences)
    assert of_single.effects is not None
    assert of_double.effects is not None
    assert of_single.effects.raised_by.dtype == torch.float32
    torch.testing.assert_close(of_single.effects.raised_by.double(), of_double.effects.raised_by, rtol=1e-4, atol=1e-5)


def test_refuses_tokens_without_a_text_and_positions_that_are_no_tokens() -> None:
    with pytest.raises(ValueError, match="tokens from 0 to 10 for a vocabulary of 3"):
        token_contexts_of(tokens_of(), TEXTS[:3], AMPLE)
    chain = language_chain()
    last = FunctionSection(lambda stream: chain.sections[0](stream)[:, -1:])
    shorter = Chain(("blocks.0.hook_resid_pre", "output"), (last,), chain.embed, last_has_constant=False)
    with pytest.raises(ValueError, match="output: 1 positions for 23 tokens"):
        found_in(shorter, tokens_of())
