"""What a model makes of some tokens by its own library, for comparison with what is made of it here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.transformer.configuration import CONTEXT_LENGTHS


@dataclass(frozen=True)
class Reference:
    """What a model makes of some tokens, by its own library: more of them than its longest window holds."""

    tokens: Int[Tensor, "batch position"]
    logits: Float[Tensor, "batch position token"]

    @classmethod
    def of(cls, logits_of: Callable[[Tensor], Tensor], config: Any) -> Reference:
        """By a model in evaluation mode, of this configuration of the bridge or the model."""
        windows = [getattr(config, key, None) or 0 for key in ("sliding_window", "window_size")]
        n_context = next((n for key in CONTEXT_LENGTHS if isinstance(n := getattr(config, key, None), int)), 24)
        n_tokens = next(n for key in ("vocab_size", "d_vocab") if isinstance(n := getattr(config, key, None), int))
        length = min(n_context, max(24, *windows) + 8)
        tokens = torch.randint(n_tokens, (2, length), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return cls(tokens, logits_of(tokens).cpu())
