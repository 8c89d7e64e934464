"""Language models as the pipeline sees them: one file, score, names of features."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from libcore.ablation import EvaluationData, cross_entropy
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.transformer.architecture import Architecture, Weights
from models.transformer.contexts import token_contexts_of
from models.transformer.labels import token_labels
from models.transformer.text import TextData
from models.weights import CheckpointError, ModelFile, check_shapes

ARCHITECTURE, VOCABULARY = "architecture", "vocabulary"
"""Keys of the file's header, both JSON."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder with the texts of its tokens."""

    architecture: Architecture
    weights: Weights
    vocabulary: tuple[str, ...]

    def packed(self) -> ModelFile:
        """All of it in one file, which is read without the model's library."""
        header = {ARCHITECTURE: self.architecture.to_json(), VOCABULARY: json.dumps(self.vocabulary)}
        return ModelFile(self.weights, header)

    @classmethod
    def unpacked(cls, file: ModelFile, source: Path) -> LanguageModel:
        """Back from `packed`; `source` is the path that errors name.

        Raises CheckpointError where the header is incomplete or damaged, or the weights do not fit it.
        """
        for key in (ARCHITECTURE, VOCABULARY):
            if key not in file.header:
                raise CheckpointError(f"{source}: {key} is missing in the header; expected a model of an earlier run")
        try:
            architecture = Architecture.from_json(file.header[ARCHITECTURE])
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{source}: {ARCHITECTURE} in the header is damaged; {error}") from error
        weights = check_shapes(file.tensors, architecture.weight_shapes(), (), source)
        return cls(architecture, weights, vocabulary_of(file.header[VOCABULARY], source))

    @classmethod
    def read(cls, path: Path) -> LanguageModel:
        """From a file that `packed` was written to; raises CheckpointError."""
        return cls.unpacked(ModelFile.read(path), path)


def vocabulary_of(text: str, source: Path) -> tuple[str, ...]:
    """The texts of all tokens from their JSON; raises CheckpointError."""
    try:
        vocabulary = json.loads(text)
    except ValueError:
        vocabulary = None
    if not isinstance(vocabulary, list) or not all(isinstance(token, str) for token in vocabulary):
        raise CheckpointError(f"{source}: {VOCABULARY} in the header is damaged; expected a JSON list of strings")
    return tuple(vocabulary)


def next_token_cross_entropy(tokens: Int[Tensor, "example position"]) -> EvaluationData:
    """Scored by the mean cross-entropy of every token but a sequence's first, in nats: lower is better."""
    return cross_entropy(tokens, tokens[:, 1:])


def analysed(
    chain: Callable[[torch.dtype], Chain], text: TextData, device: torch.device, memory_budget: int
) -> AnalysedModel:
    """A decoder with its texts; features are named by the tokens at which they are largest.

    `chain` gives its node layers in any dtype, and is called more than once for the same.
    """
    train, test = text.train.to(device), text.test.to(device)

    contexts = token_contexts_of(train, text.vocabulary, memory_budget)
    return AnalysedModel(
        chain=chain,
        train=next_token_cross_entropy(train),
        test=next_token_cross_entropy(test),
        # Where features are largest can be told in float32, which is twice as fast.
        label_features=lambda _, bases: token_labels(
            chain(torch.float32), bases, train, text.vocabulary, memory_budget
        ),
        token_contexts=lambda _, bases: contexts(chain(torch.float32), bases),
    )
