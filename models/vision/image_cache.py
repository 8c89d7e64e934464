"""Decoded images kept in a file, so that they are decoded once."""

from __future__ import annotations

import zlib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.vision.image_set import ImageFormat, LabelledImages, Splits
from models.whole_files import written_whole

CHECKSUM = "checksum"
NAMES = ("train/images", "train/labels", "test/images", "test/labels")


def write_cached(path: Path, splits: Splits) -> None:
    """Both splits, under a temporary name and then renamed; raises OSError or SafetensorError if that fails."""
    tensors = [tensor for split in splits for tensor in (split.images, split.labels)]
    with written_whole(path) as temporary:
        save_file(dict(zip(NAMES, tensors, strict=True)), temporary, {CHECKSUM: checksum(tensors)})


def read_cached(path: Path, image_format: ImageFormat) -> Splits | None:
    """Both splits, or None if there is no such file, it is damaged, or it does not have the format's sizes."""
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(CHECKSUM)
            tensors = [file.get_tensor(name) for name in NAMES]
    except (SafetensorError, OSError):
        return None
    sizes = (image_format.n_train, image_format.n_test)
    shapes = [shape for n in sizes for shape in ((n, *image_format.image_shape()), (n,))]
    if [tensor.shape for tensor in tensors] != shapes or checksum(tensors) != expected:
        return None
    train_images, train_labels, test_images, test_labels = tensors
    return LabelledImages(train_images, train_labels), LabelledImages(test_images, test_labels)


def checksum(tensors: list[Tensor]) -> str:
    """CRC-32 of the contents: safetensors notices a file cut short, but not changed bytes."""
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.contiguous().numpy().data, value)
    return f"{value:08x}"
