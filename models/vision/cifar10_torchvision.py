"""CIFAR-10 as torchvision keeps it: a folder `cifar-10-batches-py`, downloaded where there is a network."""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from numpy.exceptions import VisibleDeprecationWarning

from libcore.messages import one_line
from models.reachable import check_reachable
from models.vision.image_set import DatasetError, ImageFormat, LabelledImages, Splits

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

FOLDER = "cifar-10-batches-py"
STALLED_SECONDS = 30.0
"""How long a download may stand still."""


@dataclass(frozen=True)
class TorchvisionFolder:
    """The folder `cifar-10-batches-py` in `root`."""

    root: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose content is the data set."""
        return tuple(path for path, _ in self.expected_md5())

    def expected_md5(self) -> list[tuple[Path, str]]:
        """Each file with the md5 sum that torchvision expects."""
        from torchvision.datasets import CIFAR10

        names = [*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
        return [(self.root / FOLDER / name, md5) for name, md5 in names]

    def check(self, image_format: ImageFormat) -> None:
        """Every file against its md5 sum, which settles sizes and content too; raises DatasetError."""
        from torchvision.datasets.utils import calculate_md5

        for path, expected in self.expected_md5():
            if not path.is_file():
                raise DatasetError(f"{path}: no such file; expected it in torchvision's {FOLDER}")
            if (found := calculate_md5(path)) != expected:
                raise DatasetError(
                    f"{path}: damaged: expected md5 {expected}, found {found} ({path.stat().st_size} bytes)"
                )

    def read(self, image_format: ImageFormat) -> Splits:
        """Both splits; raises DatasetError before anything is unpickled if a file is not the published one."""
        self.check(image_format)
        return labelled_images(load_split(self.root, train=True)), labelled_images(load_split(self.root, train=False))


def find_torchvision(root: Path) -> TorchvisionFolder | None:
    """The folder if `root` holds one, in whatever state."""
    return TorchvisionFolder(root) if (root / FOLDER).exists() else None


def load_split(root: Path, *, train: bool, download: bool = False) -> CIFAR10:
    """One split, by torchvision, which checks md5 sums and raises RuntimeError before it unpickles anything."""
    from torchvision.datasets import CIFAR10

    # The batches' dtypes were pickled with integers for flags, which some versions of NumPy warn of.
    with warnings.catch_warnings(action="ignore", category=VisibleDeprecationWarning):
        return CIFAR10(root, train=train, download=download)


def labelled_images(split: CIFAR10) -> LabelledImages:
    """The split's pixels, channels first."""
    return LabelledImages(
        torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets, dtype=torch.int64)
    )


def download(root: Path) -> TorchvisionFolder:
    """Fetch the folder into `root`, whole or not at all; raises DatasetError, soon if there is no network."""
    from torchvision.datasets import CIFAR10

    try:
        check_reachable(CIFAR10.url)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".cifar10-download-") as temporary, stall_limit():
            load_split(Path(temporary), train=True, download=True)
            # Another process may have finished the same download first.
            if not (root / FOLDER).exists():
                os.replace(Path(temporary) / FOLDER, root / FOLDER)
    # torchvision raises RuntimeError for an archive with another md5 sum than the published one's.
    except (OSError, HTTPException, RuntimeError) as error:
        raise DatasetError(f"downloading {CIFAR10.url} failed ({one_line(error)})") from error
    return TorchvisionFolder(root)


@contextmanager
def stall_limit() -> Generator[None, None, None]:
    """Connections opened meanwhile give up after `STALLED_SECONDS` of silence (torchvision sets no limit itself)."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALLED_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
