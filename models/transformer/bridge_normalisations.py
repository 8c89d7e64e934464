"""The normalisations of a TransformerLens bridge: kind, `eps`, gain and bias, wherever in a block they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from models.transformer.unsupported import UnsupportedFeature, has_part, model_name

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class Kind(NamedTuple):
    """One of `NORMALISATIONS`, and what it adds to the variance."""

    name: str = "none"
    eps: float | None = None


class Normalisations(NamedTuple):
    """By where they stand, as `Architecture` has them.

    Attributes:
        inputs: in front of attention and MLP.
        outputs: of attention and MLP, before they are added to the residual stream.
        sums: of the residual stream after they were.
        queries_keys: of queries and keys.
        final: in front of the unembedding.
        together: whether queries and keys of all heads are one vector.
    """

    inputs: Kind
    outputs: Kind
    sums: Kind
    queries_keys: Kind
    final: Kind
    together: bool

    @property
    def eps(self) -> float:
        """Of all of them."""
        return next((kind.eps for kind in self[:5] if kind.eps is not None), 0.0)


def normalisations_of(bridge: TransformerBridge) -> Normalisations:
    """Raises UnsupportedFeature for what differs between blocks, and for several `eps`."""
    name, cfg, blocks = model_name(bridge), bridge.cfg, list(bridge.blocks)

    def of_all(where: str, found: list[Kind]) -> Kind:
        if len(set(found)) > 1:
            raise UnsupportedFeature(name, f"{where} that differs between blocks")
        return found[0] if found else Kind()

    before = of_all("normalisation", [kind_of(part, cfg) for b in blocks for part in parts_of(b, "ln1", "ln2")])
    outputs = of_all(
        "normalisation after modules",
        [kind_of(part, cfg) for b in blocks for part in parts_of(b, "ln1_post", "ln2_post")],
    )
    if outputs.name != "none" and any(len(parts_of(b, "ln1_post", "ln2_post")) != 2 for b in blocks):
        raise UnsupportedFeature(name, "normalisation after one of two modules")
    heads = [part for b in blocks for part in parts_of(b.attn, "q_norm", "k_norm")]
    queries_keys = of_all("normalisation of queries and keys", [kind_of(of_heads(part), cfg) for part in heads])
    if heads and len(heads) != 2 * len(blocks):
        raise UnsupportedFeature(name, "normalisation of queries and keys in some blocks")
    final = kind_of(bridge.ln_final, cfg) if has_part(bridge, "ln_final") else Kind()
    is_after = getattr(blocks[0].original_component, "do_layer_norm_before", True) is False
    found = Normalisations(
        inputs=Kind() if is_after else before,
        outputs=outputs,
        sums=before if is_after else Kind(),
        queries_keys=queries_keys,
        final=final,
        together=bool(heads) and gain_of(heads[0]).shape == (bridge.cfg.n_heads * bridge.cfg.d_head,),
    )
    if len({kind.eps for kind in found[:5]} - {None}) > 1:
        raise UnsupportedFeature(name, "normalisations with several eps")
    return found


def parts_of(component: Any, *names: str) -> list[Any]:
    """Those of the bridged components that there are."""
    children = dict(component.named_children())
    return [children[name] for name in names if name in children and children[name].original_component is not None]


def of_heads(bridged: Any) -> Any:
    """The normalisation itself; a model may have one for each head."""
    norms = getattr(bridged.original_component, "norms", None)
    return bridged if norms is None else norms[0]


def kind_of(bridged: Any, cfg: Any) -> Kind:
    """Of one normalisation, bridged or not."""
    component = getattr(bridged, "original_component", bridged)
    if isinstance(component, nn.Identity):
        return Kind()
    eps = next((getattr(component, key) for key in ("eps", "variance_epsilon") if hasattr(component, key)), cfg.eps)
    name = type(component).__name__
    is_layer_norm = isinstance(component, nn.LayerNorm) or "LayerNorm" in name
    is_rms_norm = "RMS" in name or (not is_layer_norm and getattr(bridged, "uses_rms_norm", False))
    return Kind("rms_norm" if is_rms_norm else "layer_norm", float(eps))


def gain_of(bridged: Any) -> Tensor:
    """As the model multiplies by it; of a norm for each head, `[head, d_head]`."""
    component = bridged.original_component
    norms = getattr(component, "norms", None)
    gain = torch.stack([norm.weight for norm in norms]) if norms is not None else component.weight
    return 1.0 + gain if getattr(bridged, "uses_weight_offset", False) else gain


def normalisation_weights(prefix: str, bridged: Any) -> dict[str, Tensor | None]:
    """Gain and bias, None where a normalisation has none."""
    component = bridged.original_component
    gain = gain_of(bridged) if getattr(component, "weight", None) is not None else None
    return {f"{prefix}.w": gain, f"{prefix}.b": getattr(component, "bias", None)}


def head_normalisation_weights(prefix: str, bridged: Any, n_heads: int, d_head: int) -> dict[str, Tensor]:
    """Gain and bias for each coordinate of each head, whichever of them share theirs."""
    component = bridged.original_component
    gain, bias = gain_of(bridged), getattr(component, "bias", None)
    norms = getattr(component, "norms", None)
    if norms is not None and norms[0].bias is not None:
        bias = torch.stack([norm.bias for norm in norms])
    shift = torch.zeros_like(gain) if bias is None else bias
    return {f"{prefix}.{name}": in_heads(weight, n_heads, d_head) for name, weight in (("w", gain), ("b", shift))}


def in_heads(weight: Tensor, n_heads: int, d_head: int) -> Tensor:
    """`[head, d_head]`, from one head's coordinates or all heads'."""
    return weight.expand(n_heads, d_head) if weight.shape == (d_head,) else weight.reshape(n_heads, d_head)
