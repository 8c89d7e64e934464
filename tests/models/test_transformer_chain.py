"""Decoders as chains of sections, at any choice of node layers, and in one file with their weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from libcore.methods import METHODS, FitSettings
from libcore.sections import AffineSection, BlockSection, ComposedSection
from libcore.statistics import chain_statistics
from models.transformer.architecture import Architecture
from models.transformer.chain import chain_of
from models.transformer.model import LanguageModel
from models.transformer.node_layers import all_node_layers, default_node_layers, resolve
from models.weights import CheckpointError, ModelFile

CPU = torch.device("cpu")
SEQUENTIAL = Architecture(
    n_layers=2,
    d_model=8,
    n_heads=4,
    n_key_value_heads=2,
    d_head=5,
    d_mlp=7,
    d_vocab=11,
    d_vocab_out=11,
    n_context=9,
    normalisation="layer_norm",
    final_normalisation="layer_norm",
    eps=1e-5,
    positions="rotary",
    rotary_frequencies=((1.0, 0.25),) * 2,
    gated=True,
    activation_function="silu",
    parallel=False,
    attention_scale=2.0,
    windows=(None, 3),
)
ARCHITECTURES = {
    "sequential": SEQUENTIAL,
    "parallel": replace(SEQUENTIAL, parallel=True, normalisation="rms_norm", final_normalisation="rms_norm"),
    "no normalisation": replace(
        SEQUENTIAL, normalisation="none", final_normalisation="none", gated=False, activation_function="gelu"
    ),
    "no positions": replace(SEQUENTIAL, positions="none", rotary_frequencies=(), final_normalisation="rms_norm"),
    "attention alone": replace(SEQUENTIAL, d_mlp=0, gated=False, positions="learned", rotary_frequencies=()),
    "alibi": replace(SEQUENTIAL, positions="alibi", rotary_frequencies=(), slopes=(0.5, 0.25, 0.0625, 1.0)),
    "layers of their own positions": replace(
        SEQUENTIAL, n_layers=3, rotary_frequencies=((), (1.0,), (2.0, 0.1)), windows=(None,) * 3
    ),
    "normalised outputs": replace(SEQUENTIAL, normalisation="none", output_normalisation="layer_norm"),
    "normalised inputs and outputs": replace(SEQUENTIAL, output_normalisation="rms_norm"),
    "capped scores": replace(SEQUENTIAL, score_soft_cap=0.3),
}
DIFFERENTIATED = {
    "normalised queries": replace(SEQUENTIAL, query_key_normalisation="rms_norm"),
    "normalised queries, turned before": replace(
        SEQUENTIAL, query_key_normalisation="layer_norm", normalises_turned=True
    ),
    "all heads' queries normalised": replace(
        SEQUENTIAL, query_key_normalisation="rms_norm", normalises_heads_together=True
    ),
    "clipped, capped": replace(SEQUENTIAL, clip=0.4, score_soft_cap=0.3),
    "normalised sums": replace(SEQUENTIAL, normalisation="none", sum_normalisation="layer_norm"),
    "capped logits": replace(SEQUENTIAL, logit_soft_cap=0.5),
}
"""Of which some sections have no closed form."""
ALL = ARCHITECTURES | DIFFERENTIATED
BLOCK = (
    "blocks.{}.hook_resid_pre",
    "blocks.{}.ln1.hook_scale",
    "blocks.{}.ln1.hook_normalized",
    "blocks.{}.hook_resid_mid",
    "blocks.{}.ln2.hook_scale",
    "blocks.{}.ln2.hook_normalized",
    "blocks.{}.mlp.hook_post",
)


def random_weights(architecture: Architecture, generator: torch.Generator) -> dict[str, Tensor]:
    shapes = architecture.weight_shapes()
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) / 2 for name, shape in shapes.items()}


def tokens_of(architecture: Architecture, generator: torch.Generator) -> Tensor:
    return torch.randint(architecture.d_vocab, (3, architecture.n_context), generator=generator)


def test_all_node_layers_are_in_the_models_order() -> None:
    expected = [name.format(layer) for layer in range(2) for name in BLOCK]
    after = ["blocks.1.hook_resid_post", "ln_final.hook_scale", "ln_final.hook_normalized", "output"]
    assert all_node_layers(SEQUENTIAL) == (*expected, *after)


def test_parallel_blocks_have_no_stream_between_attention_and_mlp() -> None:
    layers = all_node_layers(ARCHITECTURES["parallel"])
    expected = ("hook_resid_pre", "ln1.hook_scale", "ln1.hook_normalized", "mlp.hook_post")
    assert layers[:4] == tuple(f"blocks.0.{name}" for name in expected)


def test_default_node_layers_are_the_residual_stream() -> None:
    assert default_node_layers(SEQUENTIAL) == (
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_mid",
        "blocks.1.hook_resid_pre",
        "blocks.1.hook_resid_mid",
        "blocks.1.hook_resid_post",
    )
    assert default_node_layers(ARCHITECTURES["attention alone"])[1] == "blocks.1.hook_resid_pre"
    assert resolve(None, SEQUENTIAL) == default_node_layers(SEQUENTIAL)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["output", "blocks.0.hook_resid_m*"], ("blocks.0.hook_resid_mid", "output")),
        (["blocks.*.hook_resid_mid"], ("blocks.0.hook_resid_mid", "blocks.1.hook_resid_mid")),
        (["blocks.0.hook_resid_m?d", "*.hook_resid_mid"], ("blocks.0.hook_resid_mid", "blocks.1.hook_resid_mid")),
        (["blocks.0.hook_resid_post", "output"], ("blocks.0.hook_resid_post", "output")),
        (["blocks.*.hook_resid_post"], ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")),
        (
            ["blocks.0.hook_resid_post", "blocks.1.hook_resid_*"],
            ("blocks.0.hook_resid_post", "blocks.1.hook_resid_mid", "blocks.1.hook_resid_post"),
        ),
        (["ln_final.*"], ("ln_final.hook_scale", "ln_final.hook_normalized")),
        (["*"], all_node_layers(SEQUENTIAL)),
    ],
)
def test_names_and_patterns_are_resolved(patterns: list[str], expected: tuple[str, ...]) -> None:
    assert resolve(patterns, SEQUENTIAL) == expected


def test_a_name_that_matches_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^blocks\.0\.hook_resid_middle: .*did you mean blocks\.0\.hook_resid_mid"):
        resolve(["output", "blocks.0.hook_resid_middle"], SEQUENTIAL)
    with pytest.raises(ValueError, match=r"^blocks\.2\.\*: matches no node layer; expected some of blocks"):
        resolve(["blocks.2.*"], SEQUENTIAL)
    with pytest.raises(ValueError, match=r"^zzz: no such node layer; expected some of blocks"):
        resolve(["zzz"], SEQUENTIAL)


@pytest.mark.parametrize(
    "names",
    [
        ["output", "blocks.0.hook_resid_mid"],
        ["output", "output"],
        # Two names of one node layer.
        ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"],
    ],
)
def test_names_out_of_order_or_repeated_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="expected each once, in the model's order"):
        resolve(names, SEQUENTIAL)


def test_one_node_layer_is_not_enough() -> None:
    with pytest.raises(ValueError, match="1 node layer; expected at least 2"):
        resolve(["blocks.0.hook_resid_m*"], SEQUENTIAL)


@pytest.mark.parametrize("name", ALL)
def test_pairs_of_node_layers_give_the_same_logits(name: str, generator: torch.Generator) -> None:
    architecture = ALL[name]
    weights, tokens = random_weights(architecture, generator), tokens_of(architecture, generator)
    layers = all_node_layers(architecture)
    finest = chain_of(architecture, weights, torch.float64, CPU, layers)
    activations = [finest.activation(tokens, index) for index in range(len(layers))]
    expected = activations[-1]
    assert expected.shape == (3, architecture.n_context, architecture.d_vocab_out)
    for first, start in enumerate(layers):
        # Four layers on is past the module; further pairs repeat the same steps in the next one.
        for last in {*range(first + 1, min(first + 5, len(layers))), len(layers) - 1} - {first}:
            chain = chain_of(architecture, weights, torch.float64, CPU, [start, layers[last]])
            between = chain.activation(tokens, 1)
            torch.testing.assert_close(between, activations[last], rtol=1e-10, atol=1e-10)
            assert (chain.tail is None) == (layers[last] == "output")
            torch.testing.assert_close(chain.output_from(between, 1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_every_node_layer_carries_the_constant_but_the_logits(name: str, generator: torch.Generator) -> None:
    architecture = ALL[name]
    chain = chain_of(architecture, random_weights(architecture, generator), torch.float64, CPU, ["*"])
    for index, layer in enumerate(chain.node_layers[:-1]):
        constant = chain.activation(tokens_of(architecture, generator), index)[..., -1]
        assert chain.has_constant(layer)
        assert torch.equal(constant, torch.ones_like(constant))
    assert not chain.has_constant("output")


def test_adjacent_residual_streams_are_one_section_with_closed_forms(generator: torch.Generator) -> None:
    weights = random_weights(SEQUENTIAL, generator)
    chain = chain_of(SEQUENTIAL, weights, torch.float64, CPU)
    assert [type(section) for section in chain.sections] == [BlockSection] * 4
    finest = chain_of(SEQUENTIAL, weights, torch.float64, CPU, ["*"])
    assert all(isinstance(section, BlockSection | AffineSection) for section in finest.sections)
    whole = chain_of(SEQUENTIAL, weights, torch.float64, CPU, ["blocks.*.hook_resid_pre"])
    assert isinstance(whole.sections[0], ComposedSection)
    assert len(whole.sections[0].sections) == 2


def test_fine_node_layers_hold_scale_normalised_and_hidden_activations(generator: torch.Generator) -> None:
    weights = random_weights(SEQUENTIAL, generator)
    tokens = tokens_of(SEQUENTIAL, generator)
    chain = chain_of(SEQUENTIAL, weights, torch.float64, CPU, [name.format(0) for name in BLOCK])
    _, _, _, stream, scale, normalized, hidden = (chain.activation(tokens, index)[..., :-1] for index in range(7))
    centred = stream - stream.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + SEQUENTIAL.eps).rsqrt()
    torch.testing.assert_close(scale, torch.cat([stream, inverse], -1))
    torch.testing.assert_close(normalized, torch.cat([stream, centred * inverse], -1))
    read = centred * inverse * weights["blocks.0.ln2.w"] + weights["blocks.0.ln2.b"]
    gate, linear = (read @ weights[f"blocks.0.mlp.W_{n}"] + weights[f"blocks.0.mlp.b_{n}"] for n in ("gate", "in"))
    torch.testing.assert_close(hidden, torch.cat([stream, torch.nn.functional.silu(gate) * linear], -1))


def test_only_scales_are_isolated(generator: torch.Generator) -> None:
    weights = random_weights(SEQUENTIAL, generator)
    finest = chain_of(SEQUENTIAL, weights, torch.float64, CPU, ["*"])
    scales = [layer for layer in finest.node_layers if layer.endswith("hook_scale")]
    assert len(scales) == 5
    assert finest.isolated == {layer: (SEQUENTIAL.d_model,) for layer in scales}
    assert chain_of(SEQUENTIAL, weights, torch.float64, CPU).isolated == {}


@pytest.mark.parametrize("method", ["lib", "pca"])
def test_one_feature_reads_the_scale_and_nothing_but_the_constant_beside_it(
    method: str, generator: torch.Generator
) -> None:
    layer = "blocks.0.ln1.hook_scale"
    weights, tokens = random_weights(SEQUENTIAL, generator), tokens_of(SEQUENTIAL, generator)
    chain = chain_of(
        SEQUENTIAL, weights, torch.float64, CPU, [layer, "blocks.0.ln1.hook_normalized", "blocks.0.hook_resid_mid"]
    )
    statistics = chain_statistics(chain, tokens, 10**6)
    to_basis = METHODS[method](chain, tokens, statistics, FitSettings())[layer].to_basis
    scale = SEQUENTIAL.d_model
    (feature,) = to_basis[scale].nonzero().flatten().tolist()
    assert to_basis[:, feature].nonzero().flatten().tolist() == [scale, scale + 1]
    # Not for want of correlation: the scale varies with the residual stream it is computed from.
    assert statistics[layer].gram[scale, :scale].abs().max() > 1e-3


def test_all_sections_are_in_the_dtype_asked_for(generator: torch.Generator) -> None:
    chain = chain_of(SEQUENTIAL, random_weights(SEQUENTIAL, generator), torch.float32, CPU, ["*"])
    tokens = tokens_of(SEQUENTIAL, generator)
    assert {chain.activation(tokens, index).dtype for index in range(len(chain.node_layers))} == {torch.float32}


def test_sequences_longer_than_the_context_are_refused(generator: torch.Generator) -> None:
    chain = chain_of(SEQUENTIAL, random_weights(SEQUENTIAL, generator), torch.float64, CPU)
    with pytest.raises(ValueError, match="sequences of 10 tokens; expected at most 9"):
        chain.embed(torch.zeros(1, 10, dtype=torch.int64))


@pytest.mark.parametrize("name", ALL)
def test_one_file_holds_architecture_and_weights(name: str, generator: torch.Generator, tmp_path: Path) -> None:
    architecture, path = ALL[name], tmp_path / "model.safetensors"
    weights, vocabulary = random_weights(architecture, generator), ("a", " ünd", "\n")
    LanguageModel(architecture, weights, vocabulary).packed().write(path)
    found = LanguageModel.read(path)
    assert (found.architecture, found.vocabulary) == (architecture, vocabulary)
    assert list(found.weights) == list(architecture.weight_shapes())
    assert load_file(path).keys() == weights.keys()
    assert all(torch.equal(found.weights[key], weights[key]) for key in weights)


def test_files_that_do_not_hold_a_transformer_are_refused(generator: torch.Generator) -> None:
    packed = LanguageModel(SEQUENTIAL, random_weights(SEQUENTIAL, generator), ("a",)).packed()
    text, path = SEQUENTIAL.to_json(), Path("model.safetensors")
    for architecture, reason in (
        ("{", "is damaged"),
        ("[]", "expected a JSON object with n_layers"),
        (text.replace('"n_layers": 2', '"n_layers": "2"'), "n_layers is '2'; expected int"),
        (text.replace('"n_layers": 2', '"n_layers": true'), "n_layers is True; expected int"),
        (text.replace('"n_layers": 2', '"n_layers": 3'), "2 windows; expected one per layer, 3"),
        (text.replace('"silu"', '"sine"'), "activation_function 'sine'; expected one of relu"),
        (text.replace('"n_heads": 4', '"n_heads": 3'), "3 heads; expected a multiple of 2"),
        (text.replace('"rotary"', '"learned"'), "[2, 2] rotary frequencies with learned positions"),
        (text.replace('"d_model": 8', '"d_model": 6'), "another shape"),
    ):
        with pytest.raises(CheckpointError, match=r"^model\.safetensors: ") as error:
            LanguageModel.unpacked(ModelFile(packed.tensors, packed.header | {"architecture": architecture}), path)
        assert reason in str(error.value)
    for key in packed.header:
        header = {other: value for other, value in packed.header.items() if other != key}
        with pytest.raises(CheckpointError, match=f"{key} is missing in the header"):
            LanguageModel.unpacked(ModelFile(packed.tensors, header), path)
