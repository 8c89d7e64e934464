"""What a decoder is made of beside its weights, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from models.transformer.activation_functions import ACTIVATION_FUNCTIONS

Weights = dict[str, Tensor]

NORMALISATIONS = ("layer_norm", "rms_norm", "none")
POSITIONS = ("learned", "rotary", "alibi", "none")


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
        positions: `learned` embeddings are added to the tokens', `rotary` ones turn queries and keys, `alibi` ones are
            added to attention scores.
        rotary_frequencies: of each layer, radians per position of the coordinate pairs `(i, i + n)` of a head; none of
            a layer that positions do not turn.
        gated: whether the MLP's hidden activations are `φ(gate) * linear` rather than `φ(linear)`.
        activation_function: `φ`, one of `ACTIVATION_FUNCTIONS`.
        parallel: whether attention and MLP both read the residual stream before the block.
        attention_scale: what attention scores are divided by.
        windows: of each layer, how many positions up to its own a query sees, None for all.
        slopes: of each head; `slope * (key position - query position)` is added to its scores. Empty without ALiBi.
        output_normalisation: of attention's and the MLP's outputs, before they are added to the residual stream.
        sum_normalisation: of the residual stream after each addition, in place of one in front of the modules.
        query_key_normalisation: of queries and keys, with a gain and a bias for each coordinate of each head.
        normalises_heads_together: queries and keys over all heads, and not within each.
        normalises_turned: queries and keys after positions have turned them.
        clip: what queries, keys and values are limited to, either way.
        score_soft_cap, logit_soft_cap: `cap * tanh(x / cap)` in place of attention scores `x`, of logits `x`.
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
    rotary_frequencies: tuple[tuple[float, ...], ...]
    gated: bool
    activation_function: str
    parallel: bool
    attention_scale: float
    windows: tuple[int | None, ...]
    slopes: tuple[float, ...] = ()
    output_normalisation: str = "none"
    sum_normalisation: str = "none"
    query_key_normalisation: str = "none"
    normalises_heads_together: bool = False
    normalises_turned: bool = False
    clip: float | None = None
    score_soft_cap: float | None = None
    logit_soft_cap: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("normalisation", self.normalisation, NORMALISATIONS),
            ("final_normalisation", self.final_normalisation, NORMALISATIONS),
            ("output_normalisation", self.output_normalisation, NORMALISATIONS),
            ("sum_normalisation", self.sum_normalisation, NORMALISATIONS),
            ("query_key_normalisation", self.query_key_normalisation, NORMALISATIONS),
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
        if self.sum_normalisation != "none" and (self.normalisation != "none" or self.parallel or not self.has_mlp):
            raise ValueError("normalised sums; expected attention and then an MLP, which read them as they are")
        if len(self.slopes) != (self.n_heads if self.positions == "alibi" else 0):
            raise ValueError(f"{len(self.slopes)} slopes; expected one per head for alibi positions, none for others")
        self._check_frequencies()

    def _check_frequencies(self) -> None:
        """Raises ValueError."""
        turning = [len(of_layer) for of_layer in self.rotary_frequencies]
        expected = self.n_layers if self.positions == "rotary" else 0
        if len(turning) != expected or any(2 * n > self.d_head for n in turning) or (turning and not any(turning)):
            raise ValueError(
                f"{turning} rotary frequencies with {self.positions} positions and heads of width {self.d_head}; "
                "expected of each layer up to half the width for rotary positions, nothing for others"
            )

    @property
    def has_mlp(self) -> bool:
        """Whether blocks have one."""
        return self.d_mlp > 0

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every weight's name and shape; biases and gains that a model lacks are there as zeros and ones."""
        d, d_head, heads, shared = self.d_model, self.d_head, self.n_heads, self.n_key_value_heads
        in_front = {"w": (d,), "b": (d,)} if (self.normalisation, self.sum_normalisation) != ("none", "none") else {}
        behind = {"w": (d,), "b": (d,)} if self.output_normalisation != "none" else {}
        mlp = {"W_in": (d, self.d_mlp), "b_in": (self.d_mlp,), "W_out": (self.d_mlp, d), "b_out": (d,)}
        if self.gated:
            mlp |= {"W_gate": (d, self.d_mlp), "b_gate": (self.d_mlp,)}
        attention = {"W_Q": (heads, d, d_head), "b_Q": (heads, d_head), "W_O": (heads, d_head, d), "b_O": (d,)}
        for name in "KV":
            attention |= {f"W_{name}": (shared, d, d_head), f"b_{name}": (shared, d_head)}
        if self.query_key_normalisation != "none":
            for name, n in (("q_norm", heads), ("k_norm", shared)):
                attention |= {f"{name}.w": (n, d_head), f"{name}.b": (n, d_head)}
        block = {"ln1": in_front, "attn": attention, "ln1_post": behind}
        if self.has_mlp:
            block |= {"ln2": in_front, "mlp": mlp, "ln2_post": behind}
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
        return cls(**{name: as_tuples(value) for name, value in found.items()})


def as_tuples(value: Any) -> Any:
    """Lists of lists as tuples of tuples."""
    return tuple(as_tuples(entry) for entry in value) if isinstance(value, list) else value


JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "str": str,
    "bool": bool,
    "tuple": list,
}
