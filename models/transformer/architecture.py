"""What a decoder is made of beside its weights, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from models.transformer.activation_functions import ACTIVATION_FUNCTIONS

Weights = dict[str, Tensor]

NORMALISATIONS = ("layer_norm", "rms_norm", "none")
POSITIONS = ("learned", "rotary", "none")


@dataclass(frozen=True)
class Architecture:
    """A decoder of blocks, each attention and an MLP that read the normalised residual stream and add to it.

    Attributes:
        n_layers, d_model, n_heads, n_key_value_heads, d_head: sizes; query head `h` reads key and value head
            `h // (n_heads / n_key_value_heads)`.
        d_mlp: hidden width of the MLPs, 0 for blocks of attention alone.
        d_vocab, d_vocab_out: tokens that are read, logits that are written.
        n_context: longest sequence, in tokens.
        normalisation: of attention's and the MLP's inputs, one of `NORMALISATIONS`.
        final_normalisation: in front of the unembedding.
        eps: added to the variance by all of them.
        positions: `learned` embeddings are added to the tokens', `rotary` ones turn queries and keys.
        rotary_frequencies: radians per position of the coordinate pairs `(i, i + n)` of a head.
        gated: whether the MLP's hidden activations are `φ(gate) * linear` rather than `φ(linear)`.
        activation_function: `φ`, one of `ACTIVATION_FUNCTIONS`.
        parallel: whether attention and MLP both read the residual stream before the block.
        attention_scale: what attention scores are divided by.
        windows: of each layer, how many positions up to its own a query sees, None for all.
    """

    n_layers: int
    d_model: int
    n_heads: int
    n_key_value_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_context: int
    normalisation: str
    final_normalisation: str
    eps: float
    positions: str
    rotary_frequencies: tuple[float, ...]
    gated: bool
    activation_function: str
    parallel: bool
    attention_scale: float
    windows: tuple[int | None, ...]

    def __post_init__(self) -> None:
        for name, value, known in (
            ("normalisation", self.normalisation, NORMALISATIONS),
            ("final_normalisation", self.final_normalisation, NORMALISATIONS),
            ("positions", self.positions, POSITIONS),
            ("activation_function", self.activation_function, tuple(ACTIVATION_FUNCTIONS)),
        ):
            if value not in known:
                raise ValueError(f"{name} {value!r}; expected one of {', '.join(known)}")
        if len(self.windows) != self.n_layers:
            raise ValueError(f"{len(self.windows)} windows; expected one per layer, {self.n_layers}")
        if self.n_heads % self.n_key_value_heads:
            raise ValueError(
                f"{self.n_heads} heads; expected a multiple of {self.n_key_value_heads}, the key-value heads"
            )
        if (self.positions == "rotary") != bool(self.rotary_frequencies) or (
            2 * len(self.rotary_frequencies) > self.d_head
        ):
            raise ValueError(
                f"{len(self.rotary_frequencies)} rotary frequencies with {self.positions} positions and heads of width"
                f" {self.d_head}; expected up to half the width for rotary positions, none for others"
            )

    @property
    def has_mlp(self) -> bool:
        """Whether blocks have one."""
        return self.d_mlp > 0

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight's name and shape; biases and gains that a model lacks are there as zeros and ones."""
        d, d_head, heads, shared = self.d_model, self.d_head, self.n_heads, self.n_key_value_heads
        normalisation = {"w": (d,), "b": (d,)} if self.normalisation != "none" else {}
        mlp = {"W_in": (d, self.d_mlp), "b_in": (self.d_mlp,), "W_out": (self.d_mlp, d), "b_out": (d,)}
        if self.gated:
            mlp |= {"W_gate": (d, self.d_mlp), "b_gate": (self.d_mlp,)}
        attention = {"W_Q": (heads, d, d_head), "b_Q": (heads, d_head), "W_O": (heads, d_head, d), "b_O": (d,)}
        for name in "KV":
            attention |= {f"W_{name}": (shared, d, d_head), f"b_{name}": (shared, d_head)}
        block = {"ln1": normalisation, "attn": attention}
        if self.has_mlp:
            block |= {"ln2": normalisation, "mlp": mlp}
        shapes = {"embed.W_E": (self.d_vocab, d)}
        if self.positions == "learned":
            shapes["pos_embed.W_pos"] = (self.n_context, d)
        for layer in range(self.n_layers):
            for module, weights in block.items():
                shapes |= {f"blocks.{layer}.{module}.{name}": shape for name, shape in weights.items()}
        if self.final_normalisation != "none":
            shapes |= {"ln_final.w": (d,), "ln_final.b": (d,)}
        return shapes | {"unembed.W_U": (d, self.d_vocab_out), "unembed.b_U": (self.d_vocab_out,)}

    def to_json(self) -> str:
        """As one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Back from `to_json`; ValueError for anything else."""
        found = json.loads(text)
        expected = {field.name: field.type for field in fields(cls)}
        if not isinstance(found, dict) or set(found) != set(expected):
            raise ValueError(f"expected a JSON object with {', '.join(expected)}")
        for name, value in found.items():
            kind = str(expected[name]).partition("[")[0]
            if not isinstance(value, JSON_TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
                raise ValueError(f"{name} is {value!r}; expected {expected[name]}")
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        return cls(**arguments)


JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (float, int),
    "str": str,
    "bool": bool,
    "tuple": list,
}
