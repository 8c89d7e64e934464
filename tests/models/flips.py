"""Files with one bit changed."""

from __future__ import annotations


def flipped(content: bytes, position: int) -> bytes:
    """The same with one bit changed."""
    byte = content[position // 8] ^ 1 << position % 8
    return content[: position // 8] + bytes([byte]) + content[position // 8 + 1 :]
