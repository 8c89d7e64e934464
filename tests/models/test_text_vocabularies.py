"""Every vocabulary gives the text back token by token, spaces included; pretrained ones are read from their folder."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from models.transformer.text import embedded_text
from models.transformer.vocabulary import (
    Encoding,
    TextError,
    encode_byte_pairs,
    encode_characters,
    encode_pretrained,
)

TEXT = "the cat, the café\n\n    the end … the cat\n"


def joined(encoding: Encoding) -> str:
    return "".join(encoding.vocabulary[token] for token in encoding.tokens.tolist())


class TestOwnVocabularies:
    def test_characters(self):
        encoding = encode_characters(TEXT)
        assert joined(encoding) == TEXT
        assert encoding.vocabulary == tuple(sorted(set(TEXT)))
        assert encoding.beginning_of_sequence is None

    def test_byte_pairs_join_to_the_text_and_are_the_same_every_time(self):
        text = embedded_text()
        first, second = encode_byte_pairs(text, 300), encode_byte_pairs(text, 300)
        assert joined(first) == text
        assert len(first.vocabulary) == 300
        assert first.vocabulary == second.vocabulary
        assert torch.equal(first.tokens, second.tokens)
        assert len(first.tokens) < 0.6 * len(text)
        assert " the" in first.vocabulary

    def test_a_pair_never_reaches_across_a_word(self):
        vocabulary = encode_byte_pairs(TEXT * 20, 200).vocabulary
        assert " the" in vocabulary
        assert not any("the cat" in token for token in vocabulary)

    def test_a_text_with_fewer_pairs_has_a_smaller_vocabulary(self):
        encoding = encode_byte_pairs("abab", 100)
        assert joined(encoding) == "abab"
        assert len(encoding.vocabulary) < 10

    def test_more_characters_than_tokens(self):
        with pytest.raises(TextError, match="vocabulary_size=5: the text has 13 different characters"):
            encode_byte_pairs(TEXT, 5)


@pytest.fixture
def folder(tmp_path):
    """A model's folder with a byte-level tokenizer, which drops a space at the beginning when it decodes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: token for token, piece in enumerate([*alphabet, "Ġt", "he", "Ġthe"])}
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[("Ġ", "t"), ("h", "e"), ("Ġt", "he")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"bos_token_id": tokenizer.token_to_id("<s>")}))
    return tmp_path


class TestPretrained:
    def test_tokens_show_their_spaces_and_nothing_is_cut_off_or_added(self, folder):
        encoding = encode_pretrained(" the bee the", folder)
        texts = [encoding.vocabulary[token] for token in encoding.tokens.tolist()]
        assert texts == [" the", " ", "b", "e", "e", " the"]
        assert encoding.beginning_of_sequence == len(encoding.vocabulary) - 1
        assert encoding.vocabulary[-1] == "<s>"

    def test_a_part_of_a_character_is_shown_by_its_name(self, folder):
        encoding = encode_pretrained("é", folder)
        assert [encoding.vocabulary[token] for token in encoding.tokens.tolist()] == ["Ã", "©"]

    @pytest.mark.parametrize("configuration", [{}, {"bos_token_id": None}])
    def test_a_model_that_names_no_beginning(self, folder, configuration):
        (folder / "config.json").write_text(json.dumps(configuration))
        assert encode_pretrained("a", folder).beginning_of_sequence is None

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("generation_config.json", {"bos_token_id": 3}),
            ("tokenizer_config.json", {"bos_token": "he"}),
            ("tokenizer_config.json", {"bos_token": {"content": "he"}}),
        ],
    )
    def test_a_beginning_that_another_file_names(self, folder, name, content):
        (folder / "config.json").write_text("{}")
        (folder / name).write_text(json.dumps(content))
        named = 3 if "bos_token_id" in content else encode_pretrained("he", folder).tokens.item()
        assert encode_pretrained("a", folder).beginning_of_sequence == named

    @pytest.mark.parametrize(
        ("name", "content"), [("tokenizer.json", "{}"), ("tokenizer.json", "no JSON"), ("config.json", "[]")]
    )
    def test_a_damaged_folder(self, folder, name, content):
        (folder / name).write_text(content)
        with pytest.raises(TextError) as error:
            encode_pretrained("a", folder)
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_tokenizer_that_git_lfs_has_not_fetched(self, folder):
        (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(TextError, match=r"tokenizer\.json: a Git LFS pointer"):
            encode_pretrained("a", folder)


class TestWithoutATokenForTheUnknown:
    @pytest.fixture
    def folder(self, tmp_path):
        """Whole words alone."""
        words = Tokenizer(models.WordLevel({"one": 0, "two": 1}, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        words.save(str(tmp_path / "tokenizer.json"))
        return tmp_path

    def test_texts_that_it_knows(self, folder):
        encoding = encode_pretrained("two one", folder)
        assert encoding.tokens.tolist() == [1, 0]
        assert [text.strip() for text in encoding.vocabulary] == ["one", "two"]

    def test_texts_that_it_does_not(self, folder):
        with pytest.raises(TextError, match="the tokenizer does not take the text") as error:
            encode_pretrained("two three", folder)
        assert "\n" not in str(error.value)

    def test_letters_that_it_leaves_out(self, tmp_path):
        Tokenizer(models.BPE(vocab={"x": 0, "y": 1, "xy": 2}, merges=[("x", "y")])).save(
            str(tmp_path / "tokenizer.json")
        )
        vocabulary = encode_pretrained("xyx", tmp_path).vocabulary
        assert [text.strip() for text in vocabulary] == ["x", "y", "xy"]
