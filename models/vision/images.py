"""Image data sets by name: whether one is there, what identifies its content, and its images.

`digits` comes with scikit-learn. `cifar10` is looked for in a folder: Parquet files in the layout of Hugging Face's
`uoft-cs/cifar10`, then torchvision's folder; where there is neither, torchvision downloads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache as cached_per_process
from pathlib import Path

from safetensors import SafetensorError

from libcore.messages import one_line
from libcore.regular_files import regular_text
from models.vision.cifar10_parquet import LAYOUTS, ParquetFiles, find_parquet
from models.vision.cifar10_torchvision import FOLDER, TorchvisionFolder, download, find_torchvision
from models.vision.digits import read_digits
from models.vision.image_cache import read_cached, write_cached
from models.vision.image_set import FORMATS, DatasetError, ImageDataset, ImageFormat, LabelledImages, Splits

__all__ = [
    "CLASS_NAMES",
    "FORMATS",
    "DatasetError",
    "ImageDataset",
    "ImageFormat",
    "LabelledImages",
    "cached_images",
    "check_available",
    "dataset_hash",
    "load_images",
]

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "digits": tuple(f"digit {number}" for number in range(10)),
}
SUMS = "SHA256SUMS"
"""Beside the files, as `sha256sum` writes it."""
HOW_TO_GET_CIFAR10 = (
    "set data.root= to a folder with train.parquet and test.parquet from Hugging Face's uoft-cs/cifar10, or to one "
    f"that torchvision may download {FOLDER} into on a machine with a network, or take model.dataset=digits, which "
    "needs no files"
)


def check_available(name: str, root: Path) -> None:
    """Whether a data set can be loaded, as far as metadata or checksums tell; tries to download what is not there.

    Raises DatasetError. Takes well under a second unless it downloads.
    """
    check_known(name)
    if name == "cifar10":
        with explained(root):
            cifar10_source(root).check(FORMATS[name])


def dataset_hash(name: str, root: Path) -> str:
    """SHA-256 of a data set's content, as hexadecimal digits: of its files, or of the digits' pixels and labels.

    Computed once per process for files that do not change. Raises DatasetError.
    """
    check_known(name)
    if name == "digits":
        return hash_of_digits()
    with explained(root):
        stats = [(path, path.stat()) for path in cifar10_source(root).files]
        hashes = [hash_of_file(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def load_images(name: str, root: Path, cache: Path | None = None) -> ImageDataset:
    """The whole data set.

    Args:
        name: one of `FORMATS`.
        root: the folder that `cifar10` is looked for in, or downloaded into.
        cache: a folder to keep decoded images in and find them again, by the hash of the files that they come from.

    Raises:
        DatasetError: unknown name; a file is missing or damaged, and cannot be downloaded.
    """
    check_known(name)
    splits = read_digits(FORMATS[name]) if name == "digits" else load_cifar10(root, cache)
    return ImageDataset(name, CLASS_NAMES[name], *splits)


def load_cifar10(root: Path, cache: Path | None) -> Splits:
    """Both splits, from the cache if they are in it, and put there if they are not."""
    path = cached_images("cifar10", root, cache) if cache is not None else None
    if path is not None and (splits := read_cached(path, FORMATS["cifar10"])) is not None:
        return splits
    with explained(root):
        splits = cifar10_source(root).read(FORMATS["cifar10"])
    if path is not None:
        try:
            write_cached(path, splits)
        except (OSError, SafetensorError) as error:
            raise DatasetError(f"cifar10: decoded images cannot be written to {path}: {one_line(error)}") from error
    return splits


def cached_images(name: str, root: Path, cache: Path) -> Path | None:
    """The file that decoded images of this content are kept in; None for a data set that is not decoded."""
    return cache / f"cifar10-{dataset_hash(name, root)}.safetensors" if name == "cifar10" else None


def cifar10_source(root: Path) -> ParquetFiles | TorchvisionFolder:
    """Where CIFAR-10 is to be read from; downloaded if `root` holds none of it. Raises DatasetError."""
    if root.exists() and not root.is_dir():
        raise DatasetError(f"{root}: expected a folder, found a file")
    if (source := find_parquet(root) or find_torchvision(root)) is not None:
        refuse_other_sums(root, source.files)
        return source
    try:
        return download(root)
    except DatasetError as error:
        parquet = " or ".join(" and ".join(names) for names in LAYOUTS)
        found = "none of them" if root.exists() else "no such folder"
        raise DatasetError(f"{root}: expected {parquet} or {FOLDER}, found {found}, and {error}") from error


def refuse_other_sums(root: Path, files: Sequence[Path]) -> None:
    """Each file against its line in `SHA256SUMS`, where somebody has written that; raises DatasetError.

    Nothing in a JPEG image tells an altered pixel, and few Parquet files have checksums of their pages.
    """
    sums = root / SUMS
    if not sums.is_file():
        return
    expected: dict[str, str] = {}
    for line in regular_text(sums, errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        expected[name.lstrip(" *").removeprefix("./")] = digest.lower()
    for path in files:
        name = path.relative_to(root).as_posix()
        if name not in expected or not path.is_file():
            continue
        stat = path.stat()
        if (found := hash_of_file(path, stat.st_size, stat.st_mtime_ns)) != expected[name]:
            raise DatasetError(f"{path}: damaged: expected SHA-256 {expected[name]} of {SUMS}, found {found}")


@contextmanager
def explained(root: Path) -> Generator[None, None, None]:
    """Adds to what went wrong where the files were looked for and how to get them, in one line."""
    try:
        yield
    except (DatasetError, OSError) as error:
        raise DatasetError(
            f"cifar10: {one_line(error)}; looked for in data.root={root.absolute()}; {HOW_TO_GET_CIFAR10}"
        ) from error


def check_known(name: str) -> None:
    """Raises DatasetError for a name that is no data set's."""
    if name not in FORMATS:
        raise DatasetError(f"no data set {name!r}; expected one of {', '.join(FORMATS)}")


@cached_per_process
def hash_of_file(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file; size and time of change are there so that a changed file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cached_per_process
def hash_of_digits() -> str:
    """SHA-256 of pixels and labels of both splits."""
    digest = hashlib.sha256()
    for split in read_digits(FORMATS["digits"]):
        digest.update(split.images.numpy().data)
        digest.update(split.labels.numpy().data)
    return digest.hexdigest()
