"""Language models as the pipeline sees them: weights with their vocabulary, score, names of features."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from libcore.ablation import EvaluationData
from libcore.chain import Chain
from models.analysed import AnalysedModel
from models.transformer.architecture import Architecture, Weights, pack, unpack
from models.transformer.contexts import token_contexts_of
from models.transformer.labels import token_labels
from models.transformer.text import TextData
from models.weights import CheckpointError, read_state_dict

VOCABULARY_KEY = "vocabulary"


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder with the texts of its tokens."""

    architecture: Architecture
    weights: Weights
    vocabulary: tuple[str, ...]

    def packed(self) -> Weights:
        """All of it as named tensors, ready for one safetensors file."""
        text = json.dumps(self.vocabulary).encode()
        packed = pack(self.architecture, self.weights)
        return {**packed, VOCABULARY_KEY: torch.frombuffer(bytearray(text), dtype=torch.uint8)}

    @classmethod
    def unpacked(cls, tensors: Weights, source: Path) -> LanguageModel:
        """Back from `packed`; `source` is the file that errors name. Raises CheckpointError for anything else."""
        architecture, weights = unpack({name: t for name, t in tensors.items() if name != VOCABULARY_KEY}, source)
        try:
            vocabulary = json.loads(bytes(tensors[VOCABULARY_KEY].to(torch.uint8).tolist()))
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{source}: tensor {VOCABULARY_KEY!r} is missing or damaged") from error
        if not isinstance(vocabulary, list) or not all(isinstance(text, str) for text in vocabulary):
            raise CheckpointError(f"{source}: tensor {VOCABULARY_KEY!r} is damaged; expected a JSON list of strings")
        return cls(architecture, weights, tuple(vocabulary))

    @classmethod
    def read(cls, path: Path) -> LanguageModel:
        """From a file of `packed` tensors; raises CheckpointError."""
        return cls.unpacked(read_state_dict(path), path)


def cross_entropy(tokens: Int[Tensor, "example position"]) -> EvaluationData:
    """Scored by the mean cross-entropy of every token but a sequence's first, in nats: lower is better."""

    def score_sum(outputs: Tensor, start: int, stop: int) -> float:
        expected = tokens[start:stop, 1:].long()
        losses = functional.cross_entropy(outputs[:, :-1].flatten(0, 1), expected.flatten(), reduction="none")
        return losses.view_as(expected).mean(1, dtype=torch.float64).sum().item()

    return EvaluationData(tokens, score_sum, lower_is_better=True, score_name="cross-entropy")


def analysed(
    chain: Callable[[torch.dtype], Chain], text: TextData, device: torch.device, memory_budget: int
) -> AnalysedModel:
    """A decoder with its texts; features are named by the tokens at which they are largest."""
    train, test = text.train.to(device), text.test.to(device)

    @lru_cache(maxsize=1)
    def in_float32() -> Chain:
        """Where features are largest can be told in float32, which is twice as fast."""
        return chain(torch.float32)

    contexts = token_contexts_of(train, text.vocabulary, memory_budget)
    return AnalysedModel(
        chain=chain,
        train=cross_entropy(train),
        test=cross_entropy(test),
        label_features=lambda _, bases: token_labels(in_float32(), bases, train, text.vocabulary, memory_budget),
        token_contexts=lambda _, bases: contexts(in_float32(), bases),
    )
