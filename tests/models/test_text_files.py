"""Texts in rows and files of tokens: the same sequences as of a plain text, or refused in one line."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from tokenizers import Tokenizer, models, pre_tokenizers

from models.errors import UserError
from models.transformer import text, vocabulary
from models.transformer.text import Cut, read_text
from models.transformer.texts import text_data
from models.transformer.token_files import mapped_tokens
from models.transformer.vocabulary import TextError

STORIES = ["one fine day", "two\nlines", "käse"] * 40
CUT = Cut(sequence_length=4, test_share=0.2, split_seed=0)


def write_parquet(path: Path, **columns: list) -> None:
    parquet.write_table(pyarrow.table(columns), path)


def write_json(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"id": number, "text": text}) + "\n\n" for number, text in enumerate(texts)))


def assert_refused(read, path, write, expected):
    """In one line that begins with the file's name."""
    write(path)
    with pytest.raises(TextError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(error.value)


class TestRows:
    @pytest.mark.parametrize("name", ["texts.parquet", "texts.jsonl"])
    def test_every_row_is_a_line(self, tmp_path, name):
        path = tmp_path / name
        if path.suffix == ".parquet":
            write_parquet(path, label=[1] * len(STORIES), title=["x"] * len(STORIES), text=STORIES)
        else:
            write_json(path, STORIES)
        assert read_text(path) == "".join(f"{story}\n" for story in STORIES)

    def test_the_only_column_of_texts_is_read_and_rows_without_one_are_left_out(self, tmp_path):
        write_parquet(tmp_path / "texts.parquet", number=[1, 2, 3], story=["a", None, "b"])
        assert read_text(tmp_path / "texts.parquet") == "a\nb\n"

    def test_a_folder_s_files_in_the_order_of_their_names(self, tmp_path):
        write_parquet(tmp_path / "part-1.parquet", text=["second"])
        write_parquet(tmp_path / "part-0.parquet", text=["first"])
        (tmp_path / "README.md").write_text("no text")
        assert read_text(tmp_path) == "first\nsecond\n"

    @pytest.mark.parametrize(
        ("name", "write", "expected"),
        [
            ("a.parquet", lambda path: None, "no such file"),
            ("a.parquet", os.mkfifo, "no regular file"),
            ("a.jsonl", lambda path: path.symlink_to("/dev/zero"), "no regular file"),
            ("a.jsonl", lambda path: path.touch() or os.truncate(path, 2**40), "1099511627776 bytes; expected at most"),
            ("a.parquet", lambda path: path.write_bytes(b"PAR1 but nothing else PAR1"), "cannot be read as Parquet"),
            (
                "a.parquet",
                lambda path: write_parquet(path, x=["a"], y=["b"], n=[1]),
                "2 columns of texts; expected one,",
            ),
            ("a.parquet", lambda path: write_parquet(path, n=[1]), "0 columns of texts; expected one, or one that is"),
            ("a.parquet", lambda path: write_parquet(path, text=["", " "]), "empty; expected text"),
            ("a.jsonl", Path.touch, "empty; expected text"),
            ("a.jsonl", lambda path: path.write_text('{"text": "a"}\n{"text": '), "line 2 is no JSON"),
            ("a.jsonl", lambda path: path.write_bytes(b'{"text": "\xff"}'), "line 1 is no JSON"),
            ("a.jsonl", lambda path: path.write_text('{"story": "a"}'), 'line 1 has no text; expected the key "text"'),
            ("a.jsonl", lambda path: path.write_text("[1]"), "line 1 has no text"),
            (
                "a.jsonl",
                lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
                "a Git LFS pointer",
            ),
        ],
    )
    def test_what_is_no_text(self, tmp_path, name, write, expected):
        assert_refused(read_text, tmp_path / name, write, expected)

    def test_columns_are_named_where_it_is_not_clear_which(self, tmp_path):
        write_parquet(tmp_path / "a.parquet", prompt=["a"], answer=["b"], n=[1])
        with pytest.raises(TextError, match=r"found prompt \(string\), answer \(string\), n \(int64\)"):
            read_text(tmp_path / "a.parquet")

    def test_more_text_than_there_is_room_for(self, tmp_path, monkeypatch):
        """A file of few bytes, by compression."""
        write_parquet(tmp_path / "a.parquet", text=["a" * 1000] * 1000)
        assert (tmp_path / "a.parquet").stat().st_size < 5000
        monkeypatch.setattr(text, "largest_text", lambda: 5000)
        with pytest.raises(TextError, match="more than 5000 characters"):
            read_text(tmp_path / "a.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with a tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: token for token, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    (tmp_path / "model" / "config.json").write_text('{"bos_token_id": 5}')
    return tmp_path / "model"


def same(first: text.TextData, second: text.TextData) -> bool:
    return first.hash() == second.hash()


class TestSequences:
    def test_rows_give_what_the_same_text_gives(self, tmp_path, folder, monkeypatch):
        monkeypatch.setattr(vocabulary, "CHARACTERS_AT_ONCE", 20)
        (tmp_path / "plain.txt").write_text("".join(f"{story}\n" for story in STORIES))
        write_parquet(tmp_path / "rows.parquet", text=STORIES)
        write_json(tmp_path / "rows.jsonl", STORIES)
        plain, *others = (
            text_data(str(tmp_path / name), ("pretrained", folder), CUT)
            for name in ("plain.txt", "rows.parquet", "rows.jsonl")
        )
        assert all(same(plain, other) for other in others)
        assert plain.train.dtype == torch.int64

    @pytest.mark.parametrize("beginning", [False, True])
    @pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "int64"])
    def test_files_of_tokens_give_what_their_text_gives(self, tmp_path, folder, dtype, beginning):
        cut = Cut(sequence_length=4, test_share=0.2, split_seed=0, beginning_of_sequence=beginning)
        (tmp_path / "plain.txt").write_text("".join(STORIES))
        tokens = vocabulary.encode_pretrained("".join(STORIES), folder).tokens.numpy().astype(dtype)
        np.save(tmp_path / "tokens.npy", tokens)
        names = ["plain.txt", "tokens.npy"]
        if dtype == "uint16":
            tokens.tofile(tmp_path / "tokens.bin")
            names.append("tokens.bin")
        plain, *others = (text_data(str(tmp_path / name), ("pretrained", folder), cut) for name in names)
        assert all(same(plain, other) for other in others)
        assert bool((plain.train[:, 0] == 5).all()) == beginning

    def test_files_of_tokens_are_not_held_in_memory(self, tmp_path, folder):
        path, n_tokens = tmp_path / "tokens.bin", 20_000_000
        np.zeros(n_tokens, "<u2").tofile(path)
        cut = Cut(sequence_length=1000, test_share=0.2, split_seed=0, n_train=10, n_test=10)
        tracemalloc.start()
        found = text_data(str(path), ("pretrained", folder), cut)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.train.shape == (10, 1000)
        assert peak < n_tokens / 4

    def test_tokens_beyond_the_vocabulary(self, tmp_path, folder):
        np.save(tmp_path / "tokens.npy", np.full(100, 256))
        with pytest.raises(
            UserError, match=r"data\.path=.*tokens\.npy: has token 256; expected from 0 to 255, those of"
        ):
            text_data(str(tmp_path / "tokens.npy"), ("pretrained", folder), CUT)

    def test_tokens_below_zero(self, tmp_path, folder):
        np.save(tmp_path / "tokens.npy", np.full(100, -3))
        with pytest.raises(UserError, match="has token -3; expected from 0"):
            text_data(str(tmp_path / "tokens.npy"), ("pretrained", folder), CUT)

    def test_a_model_that_learns_its_vocabulary_from_the_text(self, tmp_path):
        np.save(tmp_path / "tokens.npy", np.arange(100))
        with pytest.raises(UserError, match=r"data\.path=.*tokens without their texts, .* expected a text"):
            text_data(str(tmp_path / "tokens.npy"), ("character",), CUT)

    def test_more_sequences_than_can_be_shuffled(self, tmp_path, folder):
        path = tmp_path / "tokens.bin"
        path.touch()
        os.truncate(path, 2**43)
        with pytest.raises(UserError, match=r"data\.path=.*sequences of 4 tokens; expected at most"):
            text_data(str(path), ("pretrained", folder), CUT)

    def test_what_is_wrong_with_rows_is_told_of_the_text_not_of_the_model(self, tmp_path, folder):
        (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n[]\n')
        with pytest.raises(UserError, match=r"data\.path=.*rows\.jsonl: line 2 has no text"):
            text_data(str(tmp_path / "rows.jsonl"), ("pretrained", folder), CUT)


class TestTokenFiles:
    @pytest.mark.parametrize(
        ("name", "write", "expected"),
        [
            ("a.npy", lambda path: None, "no such file"),
            ("a.bin", os.mkfifo, "no regular file"),
            ("a.bin", lambda path: path.symlink_to("/dev/zero"), "no regular file"),
            ("a.bin", Path.touch, "empty"),
            ("a.bin", lambda path: path.write_bytes(b"abc"), "3 bytes; expected tokens of 2 bytes each"),
            ("a.npy", lambda path: path.write_bytes(b"no array"), "cannot be read as an array of NumPy's"),
            ("a.npy", lambda path: np.save(path, np.arange(9.0)), "expected integers in one row, found float64"),
            (
                "a.npy",
                lambda path: np.save(path, np.zeros((2, 3), int)),
                "expected integers in one row, found int64 of",
            ),
            ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read as an array"),
            (
                "a.bin",
                lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
                "a Git LFS pointer",
            ),
        ],
    )
    def test_what_is_none(self, tmp_path, name, write, expected):
        assert_refused(mapped_tokens, tmp_path / name, write, expected)

    def test_a_file_cut_short(self, tmp_path):
        np.save(tmp_path / "a.npy", np.arange(1000))
        (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
        with pytest.raises(TextError, match="cannot be read as an array"):
            mapped_tokens(tmp_path / "a.npy")
