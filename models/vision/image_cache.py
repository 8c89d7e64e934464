"""Decoded images kept in a file, so that they are decoded once."""

from __future__ import annotations

from pathlib import Path

from models.checked_tensors import read_checked, write_checked
from models.vision.image_set import ImageFormat, LabelledImages, Splits

NAMES = ("train/images", "train/labels", "test/images", "test/labels")


def write_cached(path: Path, splits: Splits) -> None:
    """Both splits, under a temporary name and then renamed; raises OSError or SafetensorError if that fails."""
    tensors = [tensor for split in splits for tensor in (split.images, split.labels)]
    write_checked(path, dict(zip(NAMES, tensors, strict=True)), {})


def read_cached(path: Path, image_format: ImageFormat) -> Splits | None:
    """Both splits, or None if there is no such file, it is damaged, or it does not have the format's sizes."""
    if (kept := read_checked(path)) is None or kept.tensors.keys() != set(NAMES):
        return None
    tensors = [kept.tensors[name] for name in NAMES]
    sizes = (image_format.n_train, image_format.n_test)
    shapes = [shape for n in sizes for shape in ((n, *image_format.image_shape()), (n,))]
    if [tensor.shape for tensor in tensors] != shapes:
        return None
    train_images, train_labels, test_images, test_labels = tensors
    return LabelledImages(train_images, train_labels), LabelledImages(test_images, test_labels)
