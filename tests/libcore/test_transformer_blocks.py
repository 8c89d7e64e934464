"""Blocks of transformers: the forward pass equals loops, closed forms equal differentiation (METHOD.md 5)."""

from __future__ import annotations

from math import cos, exp, sin, sqrt

import pytest
import torch
from section_cases import RULES
from tiny_models import AMPLE, basis_of, largest_difference, random, random_activation, stream_of
from torch import Generator, Tensor
from transformer_blocks import (
    BLOCKS,
    LAYER_NORM,
    PARTIAL_ROTARY,
    RMS_NORM,
    ROTARY,
    SLOPES,
    WIDTH,
    D,
    attention_branch,
    block,
    rescaling,
    with_scale,
)

from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.sections import AttentionBranch, BlockSection, Normalisation
from libcore.sections import block as block_module
from libcore.sections.attention import attention as attention_module
from libcore.sections.attention import pairs as pairs_module
from libcore.sections.attention import query_rows as query_rows_module
from libcore.sections.branch import Positions

POSITIONS = 5


def normalised(normalisation: Normalisation, activation: Tensor) -> Tensor:
    """One position's activation, by the definition of LayerNorm and RMSNorm."""
    residual = activation[: normalisation.width].tolist()
    mean = sum(residual) / len(residual) if normalisation.centred else 0.0
    scale = sqrt(sum((x - mean) ** 2 for x in residual) / len(residual) + normalisation.eps)
    return torch.tensor([(x - mean) / scale for x in residual] + [1.0], dtype=torch.float64)


def turned(vector: list[float], position: int, frequencies: list[float]) -> list[float]:
    """Pairs `(i, i + n)` turned one at a time."""
    out, n = list(vector), len(frequencies)
    for i, frequency in enumerate(frequencies):
        c, s = cos(position * frequency), sin(position * frequency)
        out[i], out[i + n] = c * vector[i] - s * vector[i + n], s * vector[i] + c * vector[i + n]
    return out


def naive_attention(branch: AttentionBranch, weights: tuple[Tensor, ...], activation: Tensor) -> Tensor:
    """One example; one head, query and key at a time, keys and values shared within a group of heads."""
    W_Q, W_K, W_V, W_O = weights
    read = [f if branch.normalisation is None else normalised(branch.normalisation, f) for f in activation]
    frequencies = [] if branch.rotary is None else branch.rotary.frequencies.tolist()
    outputs = torch.zeros(len(activation), D, dtype=torch.float64)
    for t in range(len(activation)):
        for h in range(len(W_Q)):
            shared = h * len(W_K) // len(W_Q)
            query = turned((read[t] @ W_Q[h]).tolist(), t, frequencies)
            scores = {}
            for s in range(len(activation)):
                if (branch.causal and s > t) or (branch.window is not None and s <= t - branch.window):
                    continue
                key = turned((read[s] @ W_K[shared]).tolist(), s, frequencies)
                slope = 0.0 if branch.slopes is None else branch.slopes[h].item()
                score = sum(q * k for q, k in zip(query, key, strict=True)) / branch.scale
                scores[s] = exp(score + slope * (s - t))
            for s, score in scores.items():
                outputs[t] += score / sum(scores.values()) * (read[s] @ W_V[shared]) @ W_O[h]
    return outputs


@pytest.mark.parametrize(
    ("normalisation", "key_value_heads", "settings"),
    [
        (None, 4, {}),
        (LAYER_NORM, 4, {"scale": 1.0}),
        (RMS_NORM, 2, {"rotary": ROTARY}),
        (LAYER_NORM, 1, {"rotary": PARTIAL_ROTARY, "window": 2}),
        (RMS_NORM, 4, {"causal": False}),
        (RMS_NORM, 2, {"slopes": SLOPES}),
    ],
)
def test_attention_is_its_definition(
    generator: Generator, normalisation: Normalisation | None, key_value_heads: int, settings: dict
) -> None:
    state = generator.get_state()
    branch = attention_branch(generator, normalisation, key_value_heads, **settings)
    generator.set_state(state)
    unfolded = attention_branch(generator, None, key_value_heads, **settings)
    group = 4 // key_value_heads
    weights = (unfolded.W_Q, unfolded.W_K[::group], unfolded.W_V[::group], unfolded.W_O)
    activation = random_activation(generator, 2, POSITIONS, D)
    positions = Positions.of(POSITIONS, None, activation.device)
    expected = torch.stack([naive_attention(branch, weights, example) for example in activation])
    assert largest_difference(branch(activation, positions), expected) < 1e-12
    with torch.no_grad():
        assert largest_difference(branch(activation, positions), expected) < 1e-12


@pytest.mark.parametrize("normalisation", [LAYER_NORM, RMS_NORM])
def test_normalisation_is_its_definition(generator: Generator, normalisation: Normalisation) -> None:
    activation, weight = random_activation(generator, 3, 2, D), random(generator, D, 4)
    expected = torch.stack([normalised(normalisation, f) for f in activation.flatten(0, 1)]) @ weight
    read = normalisation(activation) @ normalisation.fold(weight)
    assert largest_difference(read.flatten(0, 1), expected) < 1e-12


def check_closed_forms(section: BlockSection, activation: Tensor, generator: Generator, rule: str) -> None:
    """Both closed forms against differentiation, into a basis that is not square."""
    quadrature, _ = RULES[rule]
    d_in, d_out = activation.shape[-1], section(activation).shape[-1]
    basis = basis_of(random(generator, d_in, d_in - 1))
    next_basis = basis_of(random(generator, d_out, d_out + 2))
    bases = (basis, next_basis, quadrature)
    stream = stream_of(activation)
    gram = section.closed_form_jacobian_gram(stream, next_basis, quadrature)
    exact = exact_jacobian_gram(section, stream, next_basis, quadrature)
    assert gram.dtype == torch.float64
    assert largest_difference(gram, exact) < 1e-10
    assert largest_difference(section.closed_form_edges(stream, *bases), exact_edges(section, stream, *bases)) < 1e-10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", BLOCKS)
def test_closed_forms_are_exact(generator: Generator, name: str, rule: str) -> None:
    section = BLOCKS[name](generator)
    check_closed_forms(section, random_activation(generator, 3, POSITIONS, D), generator, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("normalisation", [LAYER_NORM, RMS_NORM])
def test_closed_forms_of_rescaling_are_exact(generator: Generator, normalisation: Normalisation, rule: str) -> None:
    activation = with_scale(random_activation(generator, 3, POSITIONS, D), normalisation)
    check_closed_forms(rescaling(generator, normalisation.centred), activation, generator, rule)


@pytest.mark.parametrize("name", [name for name in BLOCKS if "attention" in name or "parallel" in name])
def test_blocks_of_keys_change_no_number(generator: Generator, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(attention_module, "KEYS_PER_BLOCK", 2)
    section = BLOCKS[name](generator)
    check_closed_forms(section, random_activation(generator, 2, POSITIONS, D), generator, "gradient")


@pytest.mark.parametrize("memory_budget", [1, 20_000, AMPLE])
def test_memory_budget_changes_no_number(generator: Generator, memory_budget: int) -> None:
    section = BLOCKS["parallel, rotary, gated, RMSNorm"](generator)
    activation, basis = random_activation(generator, 5, POSITIONS, D), basis_of(random(generator, D, 4))
    quadrature, _ = RULES["gradient"]
    whole = section.closed_form_jacobian_gram(stream_of(activation), basis, quadrature)
    chunked = section.closed_form_jacobian_gram(stream_of(activation, memory_budget), basis, quadrature)
    assert largest_difference(chunked, whole) < 1e-12


def test_one_position_is_enough(generator: Generator) -> None:
    section = BLOCKS["parallel, LayerNorm"](generator)
    check_closed_forms(section, random_activation(generator, 4, 1, D), generator, "gradient")


def test_pairs_without_attention_are_left_out(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "KEYS_PER_BLOCK", 2)
    positions = Positions.of(8, None, torch.device("cpu"))
    blocks = list(attention_branch(generator).key_blocks(positions))
    assert blocks == [(slice(start, 8), slice(start, start + 2)) for start in (0, 2, 4, 6)]
    windowed = attention_branch(generator, window=2).key_blocks(positions)
    assert [queries for queries, _ in windowed] == [slice(0, 3), slice(2, 5), slice(4, 7), slice(6, 8)]
    scattered = Positions.of(8, (7, 1, 3), torch.device("cpu"))
    of_scattered = [queries for queries, _ in attention_branch(generator).key_blocks(scattered)]
    assert torch.equal(torch.arange(3)[of_scattered[0]], torch.arange(3))
    assert torch.equal(torch.arange(3)[of_scattered[1]], torch.tensor([0, 2]))


@pytest.mark.parametrize("name", [name for name in BLOCKS if "attention" in name or "parallel" in name])
def test_pairs_of_heads_at_a_time_change_no_number(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    section, activation = BLOCKS[name](generator), random_activation(generator, 2, POSITIONS, D)
    next_basis, (quadrature, _) = basis_of(random(generator, D, 4)), RULES["trapezoidal"]
    together = section.closed_form_jacobian_gram(stream_of(activation), next_basis, quadrature)
    monkeypatch.setattr(pairs_module, "KEPT_VALUES", 1)
    monkeypatch.setattr(query_rows_module, "VALUES_IN_CACHE", 1)
    monkeypatch.setattr(query_rows_module, "LEAST_SAMPLES", 1)
    apart = section.closed_form_jacobian_gram(stream_of(activation), next_basis, quadrature)
    assert largest_difference(together, apart) < 1e-11 * max(1.0, together.abs().max().item())


@pytest.mark.parametrize("name", [name for name in BLOCKS if "attention" in name or "parallel" in name])
def test_keys_one_by_one_change_no_number(generator: Generator, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As where keys are few."""
    section, activation = BLOCKS[name](generator), random_activation(generator, 2, POSITIONS, D)
    next_basis, (quadrature, _) = basis_of(random(generator, D, 4)), RULES["trapezoidal"]
    found = []
    for few in (False, True):
        monkeypatch.setattr(query_rows_module, "few_keys", lambda *_, few=few: few)
        found.append(section.closed_form_jacobian_gram(stream_of(activation), next_basis, quadrature))
    assert largest_difference(*found) < 1e-11 * max(1.0, found[0].abs().max().item())


@pytest.mark.parametrize("name", ["attention, read at some positions", "parallel, rotary, gated, RMSNorm"])
def test_output_positions_at_a_time_change_no_number(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    section, activation = BLOCKS[name](generator), random_activation(generator, 3, POSITIONS, D)
    bases = (basis_of(random(generator, D, 4)), basis_of(random(generator, D, 4)), RULES["gradient"][0])
    together = section.closed_form_edges(stream_of(activation), *bases)
    for n_bytes in (1, 6_000):
        monkeypatch.setattr(block_module, "ATTRIBUTION_BYTES_IN_CACHE", n_bytes)
        apart = section.closed_form_edges(stream_of(activation), *bases)
        assert largest_difference(together, apart) < 1e-11 * max(1.0, together.abs().max().item())


def test_float32_blocks_have_float64_closed_forms(generator: Generator) -> None:
    section = BLOCKS["parallel, rotary, gated, RMSNorm"](generator)
    activation, basis = random_activation(generator, 3, POSITIONS, D), basis_of(random(generator, D, 4))
    quadrature, _ = RULES["gradient"]
    single = section.to(dtype=torch.float32)
    stream = stream_of(activation.float())
    gram = single.closed_form_jacobian_gram(stream, basis.to(dtype=torch.float32), quadrature)
    assert gram.dtype == torch.float64
    reference = section.closed_form_jacobian_gram(stream_of(activation), basis, quadrature)
    assert largest_difference(gram, reference) < 1e-5 * reference.abs().max()


def test_other_widths_than_the_normalised_are_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="expected 4 normalised and the constant"):
        attention_branch(generator, Normalisation(WIDTH - 1, True, 1e-5))
    with pytest.raises(ValueError, match="expected a multiple"):
        attention_branch(generator, key_value_heads=3)


def test_moved_blocks_keep_angles_in_float64(generator: Generator) -> None:
    moved = block(generator, attention_branch(generator, rotary=ROTARY)).to(dtype=torch.float32)
    (branch,) = moved.branches
    assert isinstance(branch, AttentionBranch)
    assert branch.rotary is not None
    assert branch.W_Q.dtype == torch.float32
    assert branch.rotary.frequencies.dtype == torch.float64
