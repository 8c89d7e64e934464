"""CIFAR-10 from Parquet files in the layout of Hugging Face's `uoft-cs/cifar10`.

One row per example: `img`, a struct whose field `bytes` is an encoded image (PNG or JPEG), and `label`, an integer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from libcore.messages import one_line
from libcore.regular_files import refuse_irregular
from models.vision.image_set import DatasetError, ImageFormat, LabelledImages, Splits

LAYOUTS = (
    ("train.parquet", "test.parquet"),
    ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
)
IMAGES_AT_ONCE = 500


@dataclass(frozen=True)
class ParquetFiles:
    """One file per split."""

    train: Path
    test: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose content is the data set."""
        return self.train, self.test

    def check(self, image_format: ImageFormat) -> None:
        """Columns and row counts, from the files' metadata; raises DatasetError."""
        for path, n_rows in self.expected_rows(image_format):
            with opened(path, n_rows):
                pass

    def read(self, image_format: ImageFormat) -> Splits:
        """Both splits, every image decoded; raises DatasetError with the first row that is not as it should be."""
        train, test = (read_split(path, n_rows, image_format) for path, n_rows in self.expected_rows(image_format))
        return train, test

    def expected_rows(self, image_format: ImageFormat) -> tuple[tuple[Path, int], ...]:
        """Each file with its number of examples."""
        return (self.train, image_format.n_train), (self.test, image_format.n_test)


def find_parquet(root: Path) -> ParquetFiles | None:
    """The first layout of which `root` holds a file; raises DatasetError if it holds only one of the two."""
    for names in LAYOUTS:
        paths = [root / name for name in names]
        missing = [path for path in paths if not path.exists()]
        if not missing:
            return ParquetFiles(*paths)
        if len(missing) < len(paths):
            there = next(path for path in paths if path not in missing)
            raise DatasetError(f"{missing[0]}: no such file; expected it beside {there.name}")
    return None


@contextmanager
def opened(path: Path, n_rows: int) -> Generator[Any, None, None]:
    """A `pyarrow.parquet.ParquetFile` with the right columns and number of rows.

    What Arrow cannot read, here or in the block, is raised as DatasetError.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        refuse_irregular(path)
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            check_columns(path, file.schema_arrow)
            if file.metadata.num_rows != n_rows:
                raise DatasetError(f"{path}: expected {n_rows} rows, found {file.metadata.num_rows}")
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no regular file"
        raise DatasetError(
            f"{path}: expected a Parquet file, found {size} that cannot be read as one ({one_line(error)})"
        ) from error


def check_columns(path: Path, schema: Any) -> None:
    """Raises DatasetError if the columns of a `pyarrow.Schema` are not `img` with `bytes`, and `label`."""
    from pyarrow import types

    kinds = {field.name: field.type for field in schema}
    image, label = kinds.get("img"), kinds.get("label")
    encoded = {field.name: field.type for field in image} if image is not None and types.is_struct(image) else {}
    has_bytes = "bytes" in encoded and (types.is_binary(encoded["bytes"]) or types.is_large_binary(encoded["bytes"]))
    if not has_bytes or label is None or not types.is_integer(label):
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        raise DatasetError(
            f"{path}: expected columns img (struct with bytes) and label (integer), found {one_line(found)}"
        )


def read_split(path: Path, n_rows: int, image_format: ImageFormat) -> LabelledImages:
    """One file's examples, in the order of its rows."""
    with opened(path, n_rows) as file:
        table = file.read(columns=["img.bytes", "label"])
    labels = checked_labels(path, table["label"].to_pylist(), image_format.n_classes)
    encoded = [image and image["bytes"] for image in table["img"].to_pylist()]
    return LabelledImages(decoded(path, encoded, image_format), labels)


def checked_labels(path: Path, labels: list[int | None], n_classes: int) -> Int64[Tensor, " example"]:
    """The labels as a tensor; raises DatasetError with the first that is no class.

    CIFAR-10 has equally many images of each, so that a label that was altered is noticed.
    """
    for row, label in enumerate(labels):
        if label is None or not 0 <= label < n_classes:
            raise DatasetError(f"{path}: expected labels from 0 to {n_classes - 1}, found {label} in row {row}")
    counts = Counter(labels)
    if len(labels) % n_classes == 0 and len(set(counts.values())) > 1:
        label, n = counts.most_common(1)[0]
        raise DatasetError(f"{path}: expected each label {len(labels) // n_classes} times, found {label} {n} times")
    return torch.tensor(labels, dtype=torch.int64)


def decoded(
    path: Path, encoded: list[bytes | None], image_format: ImageFormat
) -> UInt8[Tensor, "example channel height width"]:
    """All images, one after another: Pillow holds the interpreter's lock, and two threads were no faster than one."""
    images = torch.empty(len(encoded), *image_format.image_shape(), dtype=torch.uint8)
    for start in range(0, len(encoded), IMAGES_AT_ONCE):
        decode_rows(path, encoded, images, start)
    return images


def decode_rows(path: Path, encoded: list[bytes | None], images: Tensor, start: int) -> None:
    """Decode rows from `start` into `images`; raises DatasetError with the first that is no image of that shape.

    The pixels of `IMAGES_AT_ONCE` become one tensor: made of each image, arrays and tensors took a third of the time.
    """
    _, channels, height, width = images.shape
    pixels = bytearray()
    for row, content in enumerate(encoded[start : start + IMAGES_AT_ONCE], start):
        try:
            pixels += decode(content, height, width)
        except DatasetError as error:
            raise DatasetError(
                f"{path}: expected {channels}x{height}x{width} images in mode RGB, found {error} in row {row}"
            ) from error
    channels_last = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, height, width, channels)
    images[start : start + len(channels_last)] = channels_last.permute(0, 3, 1, 2)


def decode(content: bytes | None, height: int, width: int) -> bytes:
    """The pixels of one PNG or JPEG image, row by row, channels last; raises DatasetError saying what it is instead."""
    from PIL import Image

    if content is None:
        raise DatasetError("no image")
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.mode != "RGB" or image.size != (width, height):
                raise DatasetError(f"{image.width}x{image.height} pixels in mode {image.mode}")
            return image.tobytes()
    except DatasetError:
        raise
    # On damaged content the decoders raise whatever they trip over, SyntaxError and struct.error among it.
    except Exception as error:
        raise DatasetError(f"{len(content)} bytes that do not decode ({one_line(error)})") from error
