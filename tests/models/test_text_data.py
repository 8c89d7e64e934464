"""Texts are read, cut and split so that no text is in both splits; errors are one line that says what is right."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.transformer.text import Cut, TextData, embedded_text, read_text, split_text, without_repetitions
from models.transformer.vocabulary import Encoding, TextError

CUT = Cut(sequence_length=5, test_share=0.25, split_seed=0)
NUMBERS = Encoding(torch.arange(103), tuple(f"{number} " for number in range(103)))
"""Every token occurs once, so that overlap can be seen."""


class TestReading:
    def test_python_s_own_reference_is_the_default_and_repeats_no_paragraph(self):
        text = read_text(None)
        assert text == embedded_text()
        assert 200_000 < len(text) < 2_000_000
        paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
        assert len(set(paragraphs)) == len(paragraphs)
        assert "Assert statements are a convenient way" in text

    def test_the_first_of_equal_paragraphs_is_kept_as_it_is(self):
        assert without_repetitions(["a  b", "c", "a\nb", "d"]) == ["a  b", "c", "d"]

    def test_a_file(self, tmp_path):
        (tmp_path / "text.md").write_bytes("\N{BYTE ORDER MARK}Käse\r\nund Brot".encode())
        assert read_text(tmp_path / "text.md") == "Käse\nund Brot"

    def test_a_folder_s_text_files_in_the_order_of_their_names(self, tmp_path):
        for name, text in (("b.txt", "second"), ("a.txt", "first"), ("c.md", "no text file")):
            (tmp_path / name).write_text(text)
        assert read_text(tmp_path) == "first\nsecond"

    @pytest.mark.parametrize(
        ("write", "expected"),
        [
            (lambda path: None, "no such file"),
            (os.mkfifo, "no regular file"),
            (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
            (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
            (lambda path: path.touch() or os.truncate(path, 2**40), "1099511627776 bytes; expected at most"),
            (Path.touch, "empty"),
            (lambda path: path.write_text(" \n "), "empty"),
            (lambda path: path.write_bytes(b"caf\xe9"), "not UTF-8 (byte 3 is 0xe9)"),
            (Path.mkdir, "no .txt, .parquet, .jsonl file"),
            (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "a Git LFS"),
        ],
    )
    def test_what_is_no_text(self, tmp_path, write, expected):
        path = tmp_path / "text.txt"
        write(path)
        with pytest.raises(TextError) as error:
            read_text(path)
        assert str(error.value).startswith(f"{path}: {expected}")
        assert "\n" not in str(error.value)


class TestSplitting:
    def test_sequences_do_not_overlap_and_are_stretches_of_the_text(self):
        data = split_text(NUMBERS, CUT)
        assert (data.train.shape, data.test.shape) == ((15, 5), (5, 5))
        everything = torch.cat([data.train, data.test])
        assert torch.equal(everything.flatten().sort().values, torch.arange(100))
        assert torch.equal(everything, everything[:, :1] + torch.arange(5))
        assert data.vocabulary == NUMBERS.vocabulary

    def test_the_split_is_drawn_by_its_seed(self):
        same, other = split_text(NUMBERS, CUT), split_text(NUMBERS, replace(CUT, split_seed=1))
        assert torch.equal(split_text(NUMBERS, CUT).train, same.train)
        assert not torch.equal(other.test, same.test)
        assert not torch.equal(same.train, same.train.sort(0).values)

    def test_a_cap_takes_the_first_sequences_of_the_same_split(self):
        whole, capped = split_text(NUMBERS, CUT), split_text(NUMBERS, replace(CUT, n_train=4, n_test=2))
        assert torch.equal(capped.train, whole.train[:4])
        assert torch.equal(capped.test, whole.test[:2])

    @pytest.mark.parametrize("share", [0.001, 0.999])
    def test_no_split_is_empty(self, share):
        data = split_text(NUMBERS, replace(CUT, test_share=share))
        assert min(len(data.train), len(data.test)) == 1

    def test_the_token_for_the_beginning_stands_before_every_sequence(self):
        data = split_text(replace(NUMBERS, beginning_of_sequence=102), replace(CUT, beginning_of_sequence=True))
        everything = torch.cat([data.train, data.test])
        assert everything.shape == (25, 5)
        assert (everything[:, 0] == 102).all()
        assert torch.equal(everything[:, 1:].flatten().sort().values, torch.arange(100))

    def test_a_tokenizer_without_such_a_token(self):
        with pytest.raises(TextError, match="beginning_of_sequence=true: this tokenizer has no such token"):
            split_text(NUMBERS, replace(CUT, beginning_of_sequence=True))

    def test_a_text_too_short_for_both_splits(self):
        with pytest.raises(TextError, match="too short: 103 tokens make 1 sequences of 60; expected at least one for"):
            split_text(NUMBERS, replace(CUT, sequence_length=60))

    def test_the_hash_tells_every_part_apart(self):
        data = split_text(NUMBERS, CUT)
        others = [
            TextData(data.train[:-1], data.test, data.vocabulary),
            TextData(data.train, data.test.flip(0), data.vocabulary),
            TextData(data.train, data.test, (*data.vocabulary[:-1], "x")),
        ]
        assert len({part.hash() for part in (data, *others)}) == 4
        assert data.hash() == split_text(NUMBERS, CUT).hash()
