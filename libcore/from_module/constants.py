"""Which position's constant coordinate belongs to each entry of a tensor.

A constant has its tensor's shape, expanded (stride 0) along dimensions in which it does not vary. Operations on tensors
carry constants along; where several meet, as those of queries and keys do in attention scores, all are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

Constants = tuple[Tensor, ...]
"""Candidates; where there are several, it cannot be told which one a bias would have to read."""


def varying(constant: Tensor) -> frozenset[int]:
    """Dimensions along which it may differ from entry to entry."""
    return frozenset(
        d for d, (size, stride) in enumerate(zip(constant.shape, constant.stride(), strict=True)) if size > 1 and stride
    )


def compact(constant: Tensor) -> Tensor:
    """With size 1 along dimensions in which it does not vary."""
    along = varying(constant)
    for dimension in range(constant.ndim):
        if dimension not in along and constant.shape[dimension] > 1:
            constant = constant.narrow(dimension, 0, 1)
    return constant


def averaged(constant: Tensor, dimensions: Iterable[int]) -> Tensor:
    """Its mean over these dimensions, kept with size 1; `compact`."""
    constant = compact(constant)
    over = [d for d in (d % constant.ndim for d in dimensions) if constant.shape[d] > 1]
    return constant.mean(over, keepdim=True) if over else constant


def contracted(constant: Tensor, labels: str, labels_out: str, shape_out: Sequence[int]) -> tuple[Tensor, bool]:
    """That of a sum over the dimensions that `labels_out` lacks, and whether the constant varied along them."""
    over = [d for d, label in enumerate(labels) if label not in labels_out]
    lost = bool(varying(constant) & set(over))
    kept = averaged(constant, over)
    for d in sorted(over, reverse=True):
        kept = kept.squeeze(d)
    order = [label for label in labels if label in labels_out]
    kept = kept.permute([order.index(label) for label in labels_out if label in order])
    for d, label in enumerate(labels_out):
        if label not in order:
            kept = kept.unsqueeze(d)
    return kept.expand(tuple(shape_out)), lost


def merged(candidates: Iterable[Tensor], shape: Sequence[int], compare: bool) -> Constants:
    """Those of several tensors that meet in one of this shape.

    One that varies along fewer dimensions than another is left out: it was broadcast. With `compare`, candidates that
    vary along the same dimensions count as one only if they are equal; otherwise they are taken for it.
    """
    expanded = [candidate.expand(tuple(shape)) for candidate in candidates]
    along = [varying(candidate) for candidate in expanded]
    kept: list[tuple[frozenset[int], Tensor]] = []
    for candidate, dimensions in zip(expanded, along, strict=True):
        if any(dimensions < other for other in along):
            continue
        same = (other for others, other in kept if others == dimensions)
        if not any(not compare or close(candidate, other) for other in same):
            kept.append((dimensions, candidate))
    return tuple(candidate for _, candidate in kept)


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for round-off."""
    one, other = compact(one), compact(other)
    return bool(((one - other).abs() <= 1e-5).all())


def bias_offset(size: int, window: int, stride: int, padding: int, dilation: int, size_out: int) -> int | None:
    """The offset in a convolution's window at which its bias reads the constant, along one axis of the image.

    The middle, or where that lies in the padding at some output pixel, the first that never does; None if all do.
    """
    middle = (window - 1) // 2
    first = -(-padding // dilation)
    for offset in (middle, first):
        begin = offset * dilation - padding
        if offset < window and begin >= 0 and begin + stride * (size_out - 1) < size:
            return offset
    return None
