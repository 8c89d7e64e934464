"""A language model as the pipeline sees it: its file, its score, and what its features are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from libcore.basis import Basis
from libcore.chain import Chain
from libcore.sections import AffineSection
from models.small_transformer.network import Sizes
from models.transformer.labels import token_labels
from models.transformer.model import LanguageModel, next_token_cross_entropy
from models.weights import CheckpointError, ModelFile

SIZES = Sizes(n_layers=1, d_model=4, n_heads=2, d_head=2, d_mlp=5, d_vocab=3, n_context=6)


@pytest.fixture
def model(generator) -> LanguageModel:
    architecture = SIZES.architecture()
    weights = {name: torch.randn(shape, generator=generator) for name, shape in architecture.weight_shapes().items()}
    return LanguageModel(architecture, weights, ("a", " ünd", "\n"))


@pytest.mark.parametrize("vocabulary", ["[1, 2, 3]", "{}", "no JSON"])
def test_a_vocabulary_that_is_none_is_refused(model, vocabulary):
    file = ModelFile(model.weights, model.packed().header | {"vocabulary": vocabulary})
    with pytest.raises(CheckpointError, match=r"file\.safetensors: vocabulary in the header is damaged"):
        LanguageModel.unpacked(file, Path("file.safetensors"))


class TestScore:
    def test_it_is_the_mean_over_predicted_tokens_whatever_the_chunks(self, generator):
        tokens = torch.randint(5, (7, 4), generator=generator)
        logits = torch.randn(7, 4, 5, generator=generator)
        data = next_token_cross_entropy(tokens)
        expected = functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), tokens[:, 1:].flatten()).item()
        for chunk in (1, 3, 7):
            bounds = [(start, min(start + chunk, 7)) for start in range(0, 7, chunk)]
            total = sum(data.score_sum(logits[start:stop], start, stop) for start, stop in bounds)
            assert total / 7 == pytest.approx(expected, abs=1e-6)
        assert (data.lower_is_better, data.score_name) == (True, "cross-entropy")

    def test_a_model_that_knows_nothing_has_the_entropy_of_the_vocabulary(self):
        data = next_token_cross_entropy(torch.zeros(2, 3, dtype=torch.int64))
        assert data.score_sum(torch.zeros(2, 3, 8), 0, 2) / 2 == pytest.approx(2.0794415)


class TestLabels:
    EMBEDDING = torch.tensor([[0.1, 5.0], [-3.0, 0.0], [2.0, -6.0], [1.0, 1.0], [9.0, 9.0]])
    VOCABULARY = ("a", " the", "\n", "b", "never")
    TOKENS = torch.tensor([[0, 1, 2, 0], [3, 1, 0, 0]])

    def chain(self, layers: tuple[str, ...] = ("first", "last")) -> Chain:
        """Tokens to two coordinates and the constant one, which the only section leaves as they are."""

        def head(tokens: torch.Tensor) -> torch.Tensor:
            return functional.pad(self.EMBEDDING[tokens], (0, 1), value=1.0)

        return Chain(layers, (AffineSection(torch.eye(3)),), head, last_has_constant=False)

    def labels(self, tokens: torch.Tensor) -> dict[str, list[str]]:
        constant_first = Basis(torch.eye(3)[:, [2, 0, 1]], torch.eye(3)[[2, 0, 1]], torch.ones(3), has_constant=True)
        bases = {"first": constant_first, "last": constant_first}
        return token_labels(self.chain(), bases, tokens, self.VOCABULARY, 2**20)

    def test_the_tokens_of_largest_magnitude_are_named(self):
        assert self.labels(self.TOKENS)["first"] == ["constant", '" the", "\\n", "b"', '"\\n", "a", "b"']

    def test_only_tokens_that_occur_are_named(self):
        assert self.labels(self.TOKENS[1:, :2])["last"] == ["constant", '" the", "b"', '"b", " the"']

    def test_logits_bear_their_token_s_name(self):
        neurons = Basis(torch.eye(3), torch.eye(3), torch.ones(3), has_constant=False)
        bases = {"first": neurons, "output": neurons}
        labels = token_labels(self.chain(("first", "output")), bases, self.TOKENS, self.VOCABULARY, 2**20)
        assert labels["output"] == ['"a"', '" the"', '"\\n"']
        assert labels["first"] != labels["output"]
