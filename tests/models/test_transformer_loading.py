"""Pretrained decoders from folders: loaded, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_families import FAMILIES, GROUPED, N_TOKENS, hugging_face_model

from models.transformer.bridge import UnsupportedFeature, load_pretrained
from models.transformer.chain import chain_of
from models.weights import CheckpointError

# Warnings there are other people's.
pytestmark = pytest.mark.filterwarnings("ignore")

STORIES = Path(__file__).parents[3] / "shared" / "data" / "stories260k"


@pytest.fixture(scope="module")
def saved_model() -> Any:
    return hugging_face_model("Llama", GROUPED, torch.float32)


@pytest.fixture
def folder(tmp_path: Path, saved_model: Any) -> Path:
    """A model and a tokenizer as `save_pretrained` leaves them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({str(token): token for token in range(N_TOKENS)}, unk_token="0"))
    special = {"unk_token": "0", "bos_token": "1", "eos_token": "2", "pad_token": "2"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(tmp_path)
    saved_model.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_is_loaded_without_a_word(
    folder: Path, saved_model: Any, generator: torch.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    architecture, weights = load_pretrained(str(folder))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    tokens = torch.randint(N_TOKENS, (2, 16), generator=generator)
    chain = chain_of(architecture, weights, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        expected = saved_model(tokens).logits
    torch.testing.assert_close(chain.output_from(chain.activation(tokens, 0), 0), expected, rtol=1e-4, atol=1e-4)


def test_the_dtype_is_the_one_asked_for(folder: Path) -> None:
    _, weights = load_pretrained(str(folder), torch.float64)
    assert {weight.dtype for weight in weights.values()} == {torch.float64}


def assert_refused(name: Path | str, *expected: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_pretrained(str(name))
    message = str(error.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert len(message) < 400
    assert all(part in message for part in expected), message


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nothing", "no such folder")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "cannot be loaded")


def test_a_name_without_a_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert_refused("nobody/no-such-model", "cannot be loaded", "or a name on the hub")


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not readable as safetensors; expected the model's"):
        load_pretrained(str(folder))


def test_missing_weights_are_refused_not_drawn_at_random(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    assert_refused(folder, "weight model.layers.1.mlp.up_proj.weight is missing")


@pytest.mark.parametrize("stored", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_the_library_would_convert_are_refused(folder: Path, dtype: torch.dtype, stored: str) -> None:
    path, name = folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    weights = load_file(path)
    weights[name] = weights[name].to(dtype)
    if stored == path.name:
        save_file(weights, path, metadata={"format": "pt"})
    else:
        path.unlink()
        torch.save(weights, folder / stored)
    with pytest.raises(CheckpointError, match=f"{stored}: weight {name} has dtype .*; expected float16"):
        load_pretrained(str(folder))


def test_weights_that_are_not_finite_are_refused_as_such(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    assert_refused(folder, "weight model.layers.1.mlp.up_proj.weight holds numbers that are not finite")


@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"]
)
def test_the_weight_that_is_not_finite_is_named_wherever_it_is(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights[name].view(-1)[1] = torch.inf
    save_file(weights, path, metadata={"format": "pt"})
    assert_refused(folder, f"weight {name} holds numbers that are not finite")


def test_another_shape_is_told_with_both(folder: Path) -> None:
    path, name = folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    weights = load_file(path)
    shape = tuple(weights[name].shape)
    weights[name] = weights[name][:-1].clone()
    save_file(weights, path, metadata={"format": "pt"})
    assert_refused(folder, f"weight {name} has another shape; expected {shape}, found {(shape[0] - 1, shape[1])}")


def test_layers_beyond_the_configuration_are_refused_not_dropped(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    assert_refused(folder, "9 weights belong to layers that the configuration does not have", "model.layers.1.")


def test_other_weights_that_are_left_out_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"value_head.weight": torch.ones(3)}, path, metadata={"format": "pt"})
    load_pretrained(str(folder))
    assert "1 weights that the model has no use for are left out: value_head.weight" in caplog.text


def test_weights_in_float64_are_not_rounded(folder: Path) -> None:
    path, name = folder / "model.safetensors", "model.embed_tokens.weight"
    weights = load_file(path)
    weights[name] = weights[name].double() + 1e-12
    save_file(weights, path, metadata={"format": "pt"})
    _, loaded = load_pretrained(str(folder))
    assert {weight.dtype for weight in loaded.values()} == {torch.float64}
    assert torch.equal(loaded["embed.W_E"], weights[name])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 538000000\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
def test_files_that_git_lfs_has_not_fetched_are_named_so(folder: Path, name: str) -> None:
    (folder / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name}: a Git LFS pointer, .*expected what `git lfs pull`"):
        load_pretrained(str(folder))


def test_a_kind_that_transformer_lens_does_not_load_is_named(tmp_path: Path) -> None:
    sizes = {**GROUPED, "head_dim": 4, "architectures": ["HeliumForCausalLM"], "pad_token_id": None}
    hugging_face_model("Helium", sizes, torch.float32).save_pretrained(tmp_path)
    assert_refused(tmp_path, "TransformerLens does not load its architecture, HeliumForCausalLM")


def test_components_that_a_kind_lacks_are_no_traceback(tmp_path: Path) -> None:
    sizes = {"vocab_size": N_TOKENS, "d_model": 24, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4}
    hugging_face_model("XGLM", sizes, torch.float32).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedFeature, match=f"{tmp_path}: .*cannot be represented as a chain of sections"):
        load_pretrained(str(tmp_path))


def test_a_key_that_its_kind_does_not_have_is_not_heeded(tmp_path: Path) -> None:
    neox = {**FAMILIES["gpt-neox, parallel"][1], "num_key_value_heads": 1}
    hugging_face_model("GPTNeoX", neox, torch.float32).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["num_key_value_heads"] == 1
    architecture, _ = load_pretrained(str(tmp_path))
    assert architecture.n_key_value_heads == architecture.n_heads


def bring_code_along(folder: Path, kind: str) -> Path:
    """A configuration that names classes in a Python file beside it, which leaves a trace where it is run."""
    path, trace = folder / "config.json", folder / "trace"
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}, "model_type": kind}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    (folder / "own.py").write_text(f"open({str(trace)!r}, 'w').close()\nraise RuntimeError('own code')\n")
    return trace


def test_code_that_a_model_brings_along_is_neither_run_nor_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    trace = bring_code_along(folder, "no_such_kind")
    assert_refused(folder, "brings code of its own along", "expected model.trust_remote_code=true")
    assert not trace.exists()
    with pytest.raises(CheckpointError, match="own code"):
        load_pretrained(str(folder), trust_remote_code=True)
    assert trace.exists()


def test_code_beside_a_known_kind_of_model_is_not_run(folder: Path) -> None:
    trace = bring_code_along(folder, "llama")
    load_pretrained(str(folder))
    assert not trace.exists()


@pytest.mark.parametrize("n_layers", [0, -1, 10**9])
def test_a_number_of_layers_that_makes_no_model_is_refused(folder: Path, n_layers: int) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": n_layers}))
    assert_refused(folder, f"num_hidden_layers is {n_layers}; expected from 1 to 1000")


def test_an_unknown_kind_of_model_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "no_such_kind"}))
    assert_refused(folder, "cannot be loaded", "no_such_kind")


def test_an_encoder_decoder_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config(d_model=8, num_layers=1, num_heads=2, d_kv=4, d_ff=8, vocab_size=N_TOKENS).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedFeature, match="encoder-decoder cannot be represented as a chain of sections"):
        load_pretrained(str(tmp_path))


@pytest.mark.skipif(not STORIES.is_dir(), reason="the pretrained model stories260k is not there")
@torch.no_grad()
def test_stories260k_has_the_bridges_logits(generator: torch.Generator) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    architecture, weights = load_pretrained(str(STORIES))
    assert (architecture.n_layers, architecture.n_heads, architecture.n_key_value_heads) == (5, 8, 4)
    tokens = torch.randint(architecture.d_vocab, (2, 128), generator=generator)
    expected = TransformerBridge.boot_transformers(str(STORIES), device="cpu")(tokens)
    chain = chain_of(architecture, weights, torch.float32, torch.device("cpu"))
    torch.testing.assert_close(chain.output_from(chain.activation(tokens, 3), 3), expected, rtol=1e-4, atol=1e-4)
