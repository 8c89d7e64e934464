"""The table of architectures in docs/RESULTS.md: `PYTHONPATH=.:tests/models python tests/models/architecture_table.py`.

Of tiny random decoders of every family, float64: how far the sections' composition is from the model's own logits, and
closed forms from differentiation, relative to the largest number.
"""

from __future__ import annotations

import warnings

import torch
from transformer_families import DECODERS, N_CONTEXT, N_TOKENS, no_rounding_to_float32, with_float64_angles

from libcore.estimators.differentiation import exact_edges, exact_jacobian_gram
from libcore.methods import METHODS, FitSettings
from libcore.quadrature import GRADIENT
from libcore.sections import ClosedForm
from libcore.statistics import chain_statistics
from models.transformer.chain import chain_of

BUDGET = 2**26


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300)).item()


def row(name: str) -> str:
    """One line of the table."""
    decoder = DECODERS[name](torch.float64)
    architecture, weights = decoder.converted()
    tokens = torch.randint(N_TOKENS, (3, N_CONTEXT), generator=torch.Generator().manual_seed(0))
    with no_rounding_to_float32(), torch.no_grad():
        with_float64_angles(decoder.own, architecture.rotary_frequencies)
        expected = decoder.logits(tokens)
    chain = chain_of(architecture, weights, torch.float64, torch.device("cpu"), ["*"])
    with torch.no_grad():
        composed = relative(chain.activation(tokens, len(chain.node_layers) - 1), expected)
    default = chain_of(architecture, weights, torch.float64, torch.device("cpu"))
    bases = METHODS["lib"](
        default, tokens, chain_statistics(default, tokens, BUDGET), FitSettings(memory_budget=BUDGET)
    )
    errors = {"attention": [0.0, 0.0], "MLP": [0.0, 0.0], "block": [0.0, 0.0]}
    differentiated: set[str] = set()
    whole = architecture.parallel or not architecture.has_mlp
    for index, section in enumerate(default.sections):
        layer, following = default.node_layers[index : index + 2]
        kind = "block" if whole else "MLP" if "mid" in layer else "attention"
        if not isinstance(section, ClosedForm):
            differentiated.add(kind)
            continue
        stream, basis, after = default.stream(tokens, index, BUDGET), bases[layer], bases[following]
        found = section.closed_form_jacobian_gram(stream, after, GRADIENT)
        gram = relative(found, exact_jacobian_gram(section, stream, after, GRADIENT))
        found = section.closed_form_edges(stream, basis, after, GRADIENT)
        edges = relative(found, exact_edges(section, stream, basis, after, GRADIENT))
        errors[kind] = [max(old, new) for old, new in zip(errors[kind], (gram, edges), strict=True)]
    cells = []
    for kind in ("attention", "MLP", "block"):
        has = (kind == "block") == whole
        gram, edges = errors[kind]
        cells.append("–" if not has else "differentiated" if kind in differentiated else f"{gram:.0e}, {edges:.0e}")
    return f"| {name} | {composed:.0e} | {' | '.join(cells)} |"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("| family | composition | attention: Gram, edges | MLP: Gram, edges | parallel block: Gram, edges |")
    print("|---|---:|---:|---:|---:|")
    for one in DECODERS:
        print(row(one), flush=True)
