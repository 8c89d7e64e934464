"""The transformer as sections, as tables and as TransformerLens has it: one function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.modular_addition.data import all_pairs
from models.modular_addition.transformer import (
    NODE_LAYERS,
    Architecture,
    chain_of,
    initial_weights,
    logits_from_pairs,
)

ARCHITECTURE = Architecture(modulus=11, d_model=12, n_heads=3, d_head=4, d_mlp=20)
CPU = torch.device("cpu")


@pytest.fixture
def weights(generator: torch.Generator) -> dict[str, Tensor]:
    """Weights with biases that are not zero, so that a forgotten one is seen."""
    shapes = ARCHITECTURE.weight_shapes()
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) / 3 for name, shape in shapes.items()}


def plain_logits(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """The transformer written out, all positions, as the paper's own code computes it."""
    residual = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"]
    n_positions = tokens.shape[1]
    attention_output = weights["blocks.0.attn.b_O"].clone()
    for head in range(ARCHITECTURE.n_heads):
        q, k, v = (
            residual @ weights[f"blocks.0.attn.W_{name}"][head] + weights[f"blocks.0.attn.b_{name}"][head]
            for name in "QKV"
        )
        scores = q @ k.transpose(1, 2) / ARCHITECTURE.d_head**0.5
        future = torch.ones(n_positions, n_positions, dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
        attention_output = attention_output + pattern @ v @ weights["blocks.0.attn.W_O"][head]
    residual = residual + attention_output
    hidden = (residual @ weights["blocks.0.mlp.W_in"] + weights["blocks.0.mlp.b_in"]).relu()
    residual = residual + hidden @ weights["blocks.0.mlp.W_out"] + weights["blocks.0.mlp.b_out"]
    return (residual @ weights["unembed.W_U"] + weights["unembed.b_U"])[:, -1]


def test_composition_of_sections_is_the_model(weights: dict[str, Tensor]) -> None:
    tokens = all_pairs(ARCHITECTURE.modulus).tokens
    chain = chain_of(weights, torch.float64, CPU)
    output = chain.activation(tokens, len(NODE_LAYERS) - 1)
    assert output.shape == (121, 1, 12)
    torch.testing.assert_close(output[:, 0], plain_logits(weights, tokens), rtol=1e-12, atol=1e-12)


def test_every_node_layer_carries_the_constant_but_the_logits(weights: dict[str, Tensor]) -> None:
    chain, tokens = chain_of(weights, torch.float64, CPU), all_pairs(ARCHITECTURE.modulus).tokens
    for index, layer in enumerate(NODE_LAYERS[:-1]):
        activation = chain.activation(tokens, index)
        assert activation.shape[1:] == ((3 if index == 0 else 1), ARCHITECTURE.d_model + 1)
        torch.testing.assert_close(activation[..., -1], torch.ones_like(activation[..., -1]), rtol=0, atol=1e-14)
        assert chain.has_constant(layer)
    assert not chain.has_constant("output")


def test_scaling_the_activation_to_zero_scales_the_biases_to_zero(weights: dict[str, Tensor]) -> None:
    chain, tokens = chain_of(weights, torch.float64, CPU), all_pairs(ARCHITECTURE.modulus).tokens
    for index, section in enumerate(chain.sections):
        activation = chain.activation(tokens, index)
        assert section(0 * activation).abs().max() == 0


def test_training_forward_pass_is_the_model(weights: dict[str, Tensor]) -> None:
    pairs = all_pairs(ARCHITECTURE.modulus)
    found = logits_from_pairs(weights, *pairs.pairs())
    torch.testing.assert_close(found, plain_logits(weights, pairs.tokens), rtol=1e-12, atol=1e-12)


def test_training_gradient_is_the_models(weights: dict[str, Tensor]) -> None:
    pairs = all_pairs(ARCHITECTURE.modulus)

    def gradients(fast: bool) -> tuple[Tensor, ...]:
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        logits = logits_from_pairs(leaves, *pairs.pairs()) if fast else plain_logits(leaves, pairs.tokens)
        loss = torch.nn.functional.cross_entropy(logits, pairs.labels)
        return torch.autograd.grad(loss, list(leaves.values()))

    for fast, slow in zip(gradients(fast=True), gradients(fast=False), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-14)


def test_initial_weights_are_set_by_the_seed() -> None:
    one, same, other = (initial_weights(ARCHITECTURE, seed) for seed in (3, 3, 4))
    for name, shape in ARCHITECTURE.weight_shapes().items():
        assert one[name].shape == shape
        assert torch.equal(one[name], same[name])
        assert ".b_" in name or not torch.equal(one[name], other[name])


@pytest.mark.filterwarnings("ignore")
def test_transformer_lens_computes_the_same_logits(weights: dict[str, Tensor]) -> None:
    """The same weights in a native bridge; warnings there are other people's."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

    config = TransformerBridgeConfig(
        d_model=ARCHITECTURE.d_model,
        n_layers=1,
        n_heads=ARCHITECTURE.n_heads,
        d_head=ARCHITECTURE.d_head,
        d_mlp=ARCHITECTURE.d_mlp,
        n_ctx=3,
        d_vocab=ARCHITECTURE.modulus + 1,
        act_fn="relu",
        normalization_type=None,
        positional_embedding_type="standard",
        architecture="TransformerLensNative",
    )
    bridge = TransformerBridge.boot_native(config, dtype=torch.float32)
    weights = {name: weight.float() for name, weight in weights.items()}
    bridge.load_state_dict(convert_tl_checkpoint(weights, config), strict=True)
    tokens = all_pairs(ARCHITECTURE.modulus).tokens
    with torch.no_grad():
        theirs = bridge(tokens)[:, -1]
    ours = chain_of(weights, torch.float32, CPU).activation(tokens, len(NODE_LAYERS) - 1)[:, 0]
    assert theirs.shape == ours.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
