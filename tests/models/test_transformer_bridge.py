"""Every family of decoders as a chain of sections: the chain's logits are the model's, or the model is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_families import (
    DECODERS,
    GPT_SIZES,
    GROUPED,
    N_CONTEXT,
    N_TOKENS,
    SIZES,
    WINDOW,
    hugging_face_bridge,
    native_bridge,
    no_rounding_to_float32,
    with_float64_angles,
)

from models.transformer.bridge import UnsupportedFeature, convert
from models.transformer.chain import chain_of
from models.transformer.node_layers import all_node_layers, default_node_layers

# Warnings there are other people's.
pytestmark = pytest.mark.filterwarnings("ignore")

CPU = torch.device("cpu")


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    """Sequences four times as long as the windows."""
    assert N_CONTEXT > 2 * WINDOW
    return torch.randint(N_TOKENS, (3, N_CONTEXT), generator=generator)


def assert_logits(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_sections_compose_to_the_models_logits(name: str, tokens: Tensor) -> None:
    """In float32 and, exactly, in float64: coarse sections and every node layer that there is."""
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        decoder = DECODERS[name](dtype)
        architecture, weights = decoder.converted()
        assert {weight.dtype for weight in weights.values()} == {dtype}
        if dtype == torch.float32:
            expected = decoder.logits(tokens)
            assert expected.std() > 0.05
        else:
            with no_rounding_to_float32():
                with_float64_angles(decoder.own, architecture.rotary_frequencies)
                expected = decoder.logits(tokens)
        assert expected.dtype == dtype
        for layers in (None, ["*"]):
            chain = chain_of(architecture, weights, dtype, CPU, layers)
            assert_logits(chain.output_from(chain.activation(tokens, 1), 1), expected, tolerance)


@pytest.mark.parametrize(
    "name", ["llama", "gpt-neo", "gpt-neox, parallel", "gpt-j", "qwen 3", "gemma 2", "olmo 2", "native, final RMSNorm"]
)
@torch.no_grad()
def test_node_layers_hold_what_the_models_hooks_of_that_name_see(name: str, tokens: Tensor) -> None:
    bridge = DECODERS[name](torch.float32).bridge
    architecture, weights = convert(bridge)
    chain = chain_of(architecture, weights, torch.float32, CPU, ["*"])
    _, cache = bridge.run_with_cache(tokens)
    d = architecture.d_model
    for index, layer in enumerate(chain.node_layers[:-1]):
        activation = chain.activation(tokens, index)
        torch.testing.assert_close(activation[..., -1], torch.ones(tokens.shape), rtol=0, atol=0)
        beside = activation[..., d:-1] if activation.shape[-1] > d + 1 else activation[..., :d]
        expected = 1 / cache[layer] if layer.endswith("hook_scale") else cache[layer]
        torch.testing.assert_close(beside, expected, rtol=1e-4, atol=1e-4, msg=lambda m, layer=layer: f"{layer}: {m}")


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "experts": (
        "Mixtral",
        {**SIZES, "num_key_value_heads": 1, "num_local_experts": 2},
        "mixture of experts",
    ),
    "dynamic rotary": (
        "Llama",
        {**GROUPED, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        "dynamic rotary positions, which change with the sequence's length,",
    ),
    "unknown activation function": (
        "GPT2",
        {**GPT_SIZES, "activation_function": "sigmoid"},
        "activation function sigmoid",
    ),
    "state space": (
        "Mamba",
        {"vocab_size": N_TOKENS, "hidden_size": 12, "num_hidden_layers": 2, "state_size": 4},
        "state-space or recurrent layers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_represented_is_refused_by_name(name: str) -> None:
    family, options, feature = REFUSED[name]
    with pytest.raises(UnsupportedFeature) as error:
        convert(hugging_face_bridge(family, options))
    assert str(error.value) == f"tiny {family}: {feature} cannot be represented as a chain of sections"


NATIVE_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bidirectional": ({"attention_dir": "bidirectional"}, "bidirectional attention"),
    "not elementwise": ({"act_fn": "solu"}, "activation function solu"),
    "normalised hidden activations": ({"act_fn": "solu_ln"}, "component 'ln' of its mlp"),
    "rotary scaling": (
        {
            "positional_embedding_type": "rotary",
            "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 8},
        },
        "rotary scaling other than linear of a native model",
    ),
}


@pytest.mark.parametrize("name", NATIVE_REFUSED)
def test_native_models_are_refused_by_name(name: str) -> None:
    options, feature = NATIVE_REFUSED[name]
    with pytest.raises(UnsupportedFeature, match=f"tiny native: {feature} cannot be represented"):
        convert(native_bridge(options))


def test_a_model_that_computes_more_than_it_tells_is_refused() -> None:
    bridge = native_bridge({})
    bridge.blocks[1].mlp.original_component.register_forward_hook(lambda module, inputs, output: 1.1 * output)
    with pytest.raises(UnsupportedFeature, match="its logits are others"):
        convert(bridge)


def test_half_precision_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match=r"weights of type torch\.bfloat16"):
        convert(native_bridge({}, torch.bfloat16))


def test_conversion_leaves_the_bridge_as_it_was() -> None:
    bridge = native_bridge({}).train()
    before = {name: weight.clone() for name, weight in bridge.state_dict().items()}
    _, weights = convert(bridge)
    weights["blocks.0.attn.W_Q"].zero_()
    assert bridge.training
    assert all(torch.equal(weight, before[name]) for name, weight in bridge.state_dict().items())


def test_tied_embeddings_become_two_tensors() -> None:
    _, weights = convert(DECODERS["gpt2"](torch.float32).bridge)
    assert torch.equal(weights["embed.W_E"], weights["unembed.W_U"].T)
    assert weights["embed.W_E"].data_ptr() != weights["unembed.W_U"].data_ptr()
    assert all(weight.is_contiguous() for weight in weights.values())


def test_architecture_tells_what_the_configuration_does() -> None:
    mistral, _ = convert(DECODERS["mistral"](torch.float32).bridge)
    assert mistral.windows == (WINDOW, WINDOW)
    assert (mistral.normalisation, mistral.gated, mistral.activation_function) == ("rms_norm", True, "silu")
    neo, _ = convert(DECODERS["gpt-neo"](torch.float32).bridge)
    assert neo.windows == (None, WINDOW)
    assert (neo.attention_scale, neo.positions, neo.activation_function) == (1.0, "learned", "gelu_tanh")
    parallel, _ = convert(DECODERS["gpt-neox, parallel"](torch.float32).bridge)
    assert parallel.parallel
    assert "blocks.0.hook_resid_mid" not in all_node_layers(parallel)
    assert default_node_layers(neo)[1] == "blocks.0.hook_resid_mid"
    llama, _ = convert(DECODERS["llama"](torch.float32).bridge)
    assert (llama.n_heads, llama.n_key_value_heads, [len(of) for of in llama.rotary_frequencies]) == (6, 2, [2, 2])
