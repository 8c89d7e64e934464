"""One example through a chain before all the others: whether it takes such inputs at all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from libcore.chain import Chain
from libcore.messages import first_line


def first_activations(chain: Chain, inputs: Any) -> list[Tensor]:
    """Every node layer's activation on the first example.

    Raises ValueError, in one line, for inputs that are no tensor, none at all, not finite, or that the chain does not
    take, and as `Chain.checked` does.
    """
    if not isinstance(inputs, Tensor):
        raise ValueError(f"inputs are a {type(inputs).__name__}; expected a tensor [example, ...]")
    takes = getattr(chain.embed, "example_shape", None)
    expected = "[example, ...]" if takes is None else f"[example, {', '.join(map(str, takes))}]"
    shape = list(inputs.shape)
    if inputs.ndim < 1 or len(inputs) < 1:
        raise ValueError(f"inputs have shape {shape}; expected {expected}, one example or more")
    if takes is not None and inputs.ndim != 1 + len(takes):
        raise ValueError(f"inputs have shape {shape}; expected {expected}, as the chain's own example")
    if not inputs.isfinite().all():
        raise ValueError(f"inputs of shape {shape} hold NaN or infinity; expected finite numbers")
    try:
        with torch.no_grad():
            activations = list(chain.checked(chain.activations(inputs[:1])))
            chain.output_from(activations[-1], len(chain.sections))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"inputs have shape {shape} and dtype {inputs.dtype}, which the chain does not take ({first_line(error)}); "
            f"expected {expected}"
        ) from error
    return activations
