"""Models in GGUF files: read as the folders that they were made from, or refused in one line."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf_files
import pytest
import torch
from gguf_files import MERGES, SIZES, TOKENS, write_gguf
from transformer_families import hugging_face_model

from models.content_hashes import file_hash
from models.errors import UserError
from models.git_lfs import BEGINNING
from models.pretrained_transformer.room import PretrainedTransformer
from models.pretrained_transformer.schema import Schema
from models.schema import ModelSettings
from models.transformer import gguf_file
from models.transformer.bridge import load_pretrained
from models.transformer.chain import chain_of
from models.transformer.configuration import context_length
from models.transformer.gguf_file import described
from models.transformer.gguf_header import read_header
from models.transformer.node_layers import OUTPUT, all_node_layers
from models.transformer.vocabulary import encode_pretrained
from models.weights import CheckpointError

# Warnings there are other people's.
pytestmark = pytest.mark.filterwarnings("ignore")

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str) -> Any:
    return hugging_face_model(family, SIZES, torch.float32)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, hugging_face_model("Llama", SIZES, torch.float32), "Llama")
    return path


def logits(source: Path, tokens: torch.Tensor) -> torch.Tensor:
    architecture, weights = load_pretrained(str(source))
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    chain = chain_of(architecture, weights, torch.float64, CPU, (all_node_layers(architecture)[0], OUTPUT))
    return chain.activation(tokens, 1)


class TestWeights:
    @pytest.mark.parametrize("quantized", ["F32", "F16", "Q8_0", "Q4_1"])
    def test_logits_are_those_of_the_folder_that_it_was_made_from(
        self, tmp_path, model, family, quantized, generator, capfd
    ):
        import gguf
        from gguf.quants import dequantize, quantize

        path, folder, kind = tmp_path / "tiny.gguf", tmp_path / "folder", gguf.GGMLQuantizationType[quantized]
        write_gguf(path, model, family, quantized)
        rounded = hugging_face_model(family, SIZES, torch.float32)
        with torch.no_grad():
            for weight in rounded.parameters():
                if weight.ndim == 2:
                    weight.copy_(torch.from_numpy(dequantize(quantize(weight.numpy(), kind), kind)))
        rounded.save_pretrained(folder)
        tokens = torch.randint(len(TOKENS), (2, 20), generator=generator)
        capfd.readouterr()
        found = logits(path, tokens)
        assert capfd.readouterr() == ("", "")
        torch.testing.assert_close(found, logits(folder, tokens), rtol=0, atol=1e-9)

    def test_a_weight_that_is_no_number(self, tmp_path):
        broken = hugging_face_model("Llama", SIZES, torch.float32)
        with torch.no_grad():
            broken.model.layers[1].input_layernorm.weight[3] = torch.nan
        write_gguf(tmp_path / "broken.gguf", broken, "Llama")
        assert_refused(tmp_path / "broken.gguf", "weight model.layers.1.input_layernorm.weight", "not finite")


class TestDescription:
    def test_tokenizer_beginning_and_context(self, llama, tmp_path):
        kept = described(llama, tmp_path / "kept.safetensors")
        encoding = encode_pretrained(" the bee", kept)
        assert [TOKENS[token] for token in encoding.tokens] == ["Ġthe", "Ġ", "b", "e", "e"]
        assert encoding.vocabulary[len(TOKENS) - 1] == " the"
        assert encoding.beginning_of_sequence == gguf_files.BEGINNING
        assert context_length(kept) == SIZES["max_position_embeddings"]

    def test_it_is_kept_and_mended(self, llama, tmp_path, monkeypatch):
        kept = described(llama, tmp_path / "kept.safetensors")
        content = kept.read_bytes()
        kept.write_bytes(content[:-3])
        assert described(llama, kept).read_bytes() == content
        monkeypatch.setattr(gguf_file, "tokenizer_of", lambda _: pytest.fail("it was read again"))
        described(llama, kept)

    def test_a_file_without_a_tokenizer(self, tmp_path):
        import gguf

        writer = gguf.GGUFWriter(tmp_path / "none.gguf", "llama")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        with pytest.raises(CheckpointError, match=r"none.gguf: no tokenizer that can be read"):
            described(tmp_path / "none.gguf", tmp_path / "kept.safetensors")


def assert_refused(path: Path, *expected: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_pretrained(str(path))
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 400
    assert all(part in message for part in expected), message


class TestRefused:
    @pytest.mark.parametrize("kept", [0, 3, 4, 30, 300, 2000, -1, -5000])
    def test_a_file_cut_short(self, llama, tmp_path, kept):
        path = tmp_path / "cut.gguf"
        path.write_bytes(llama.read_bytes()[:kept])
        assert_refused(path, "expected a whole GGUF file")

    @pytest.mark.parametrize("place", ["n_tensors", "n_values", "length of a key", "length of an array"])
    def test_damaged_lengths_are_not_believed(self, llama, tmp_path, place):
        content = bytearray(llama.read_bytes())
        array = content.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type") + 8
        offset = {"n_tensors": 8, "n_values": 16, "length of a key": 24, "length of an array": array}[place]
        struct.pack_into("<Q", content, offset, 2**61)
        path = tmp_path / "damaged.gguf"
        path.write_bytes(content)
        assert_refused(path, "damaged or cut short, in its header")

    def test_an_architecture_that_the_library_does_not_know(self, tmp_path):
        path = tmp_path / "other.gguf"
        write_gguf(path, hugging_face_model("Llama", SIZES, torch.float32), "Llama", architecture="nonesuch")
        assert_refused(path, "nonesuch")

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"no model at all, but a text", "no GGUF file"),
            (b"GGUF" + struct.pack("<I", 1), "version 1 of the format; expected 2 or 3"),
            (BEGINNING + b"v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        ],
    )
    def test_other_files(self, tmp_path, content, expected):
        path = tmp_path / "other.gguf"
        path.write_bytes(content)
        assert_refused(path, expected)

    def test_a_file_that_is_not_there(self, tmp_path):
        assert_refused(tmp_path / "none.gguf", "no such file")

    def test_without_the_package(self, llama, monkeypatch):
        monkeypatch.setattr(gguf_file, "find_spec", lambda _: None)
        assert_refused(llama, "expected `pip install gguf`")


def test_the_header_has_single_values_and_types(llama):
    header = read_header(llama)
    assert header.architecture == "llama"
    assert header.of_architecture("attention.head_count_kv") == SIZES["num_key_value_heads"]
    assert header.values["tokenizer.ggml.bos_token_id"] == gguf_files.BEGINNING
    assert "tokenizer.ggml.merges" not in header.values
    assert len(MERGES) == 3
    assert set(header.types.values()) == {0}


def room(name: str, cache: Path, **options: Any) -> PretrainedTransformer:
    settings: dict[str, Any] = {"sequence_length": 16, "beginning_of_sequence": True, "trust_remote_code": False}
    settings |= {"test_share": 0.1, "split_seed": 0, "n_train_sequences": 8, "n_test_sequences": 4, "checkpoint": None}
    model = Schema(kind="pretrained_transformer", name=name, **settings | options)
    return PretrainedTransformer(
        ModelSettings(
            model=model,
            seed=0,
            cache=cache,
            data_root=Path("data"),
            data_path=None,
            node_layers=None,
            memory_budget=2**24,
        )
    )


class TestRoom:
    def test_text_weights_and_origin(self, llama, tmp_path):
        found = room(str(llama), tmp_path)
        assert found.text.train.shape == (8, 16)
        assert (found.text.train[:, 0] == gguf_files.BEGINNING).all()
        assert len(found.text.vocabulary) == len(TOKENS)
        assert found.weights_source == {"name": "tiny.gguf", "revision": None, "files": {"tiny.gguf": file_hash(llama)}}
        assert sorted(found.kept_files()) == sorted(
            f"pretrained/{path.name}" for path in (tmp_path / "pretrained").iterdir()
        )

    def test_another_content_is_another_model(self, llama, tmp_path):
        other = tmp_path / "other" / llama.name
        other.parent.mkdir()
        other.write_bytes(llama.read_bytes() + b"x")
        assert room(str(llama), tmp_path).converted_file != room(str(other), tmp_path).converted_file

    def test_sequences_longer_than_the_file_s_context(self, llama, tmp_path):
        with pytest.raises(UserError, match=r"model\.sequence_length=25: the model reads at most 24 tokens"):
            assert room(str(llama), tmp_path, sequence_length=25).text

    def test_a_damaged_file_is_told_by_the_name_that_was_typed(self, llama, tmp_path):
        path = tmp_path / "cut.gguf"
        path.write_bytes(llama.read_bytes()[:-9])
        with pytest.raises(UserError, match=rf"model\.name={path}: cut short: tensor .* is not all there"):
            room(str(path), tmp_path).check()
