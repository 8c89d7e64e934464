"""Image data sets: what is whole is read alike from every source, and decoded once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cifar10_files import (
    FLAT_NAMES,
    HUB_NAMES,
    N_TEST,
    N_TRAIN,
    assert_is_small_cifar10,
    cut_in_half,
    labels,
    make_cifar10_small,
    rows_of,
    write_folder,
    write_parquet,
    write_rows,
)
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from models.vision import cifar10_parquet, images
from models.vision.cifar10_parquet import ParquetFiles, read_split
from models.vision.cifar10_torchvision import TorchvisionFolder
from models.vision.images import FORMATS, DatasetError, ImageFormat, check_available, dataset_hash, load_images

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar10_small(monkeypatch)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called in a test, makes every later attempt to read the data set's own files fail."""

    def forbid() -> None:
        for source in (ParquetFiles, TorchvisionFolder):
            monkeypatch.setattr(source, "read", lambda *args: pytest.fail("read anew in spite of the cache"))

    return forbid


class TestDigits:
    def test_split_is_a_permutation_with_known_sizes(self, tmp_path: Path) -> None:
        dataset, sizes = load_images("digits", tmp_path), FORMATS["digits"]
        assert (len(dataset.train), len(dataset.test)) == (sizes.n_train, sizes.n_test) == (1437, 360)
        assert dataset.train.images.shape[1:] == dataset.test.images.shape[1:] == (1, 8, 8)
        assert dataset.class_names == tuple(f"digit {number}" for number in range(10))
        order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
        both = torch.cat([dataset.train.images, dataset.test.images])
        original = load_digits()
        assert both.flatten(1).double().tolist() == np.round(original.data[order] * 255 / 16).tolist()
        assert torch.cat([dataset.train.labels, dataset.test.labels]).tolist() == original.target[order].tolist()

    def test_needs_no_folder_and_has_one_hash(self, tmp_path: Path) -> None:
        check_available("digits", tmp_path / "absent")
        assert re.fullmatch("[0-9a-f]{64}", dataset_hash("digits", tmp_path / "absent"))
        images.hash_of_digits.cache_clear()
        assert dataset_hash("digits", tmp_path / "absent") == dataset_hash("digits", tmp_path)


class TestWholeCifar10:
    @pytest.mark.parametrize("names", [FLAT_NAMES, HUB_NAMES])
    def test_parquet(self, tmp_path: Path, names: dict[str, str]) -> None:
        write_parquet(tmp_path, names)
        check_available("cifar10", tmp_path)
        assert_is_small_cifar10(load_images("cifar10", tmp_path))

    def test_more_rows_than_are_decoded_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.vision.cifar10_parquet.IMAGES_AT_ONCE", 4)
        assert_is_small_cifar10(load_images("cifar10", write_parquet(tmp_path)))

    def test_each_image_is_decoded_once_and_one_tensor_made_of_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded: list[bytes | None] = []
        tensors: list[Any] = []
        decode, frombuffer = cifar10_parquet.decode, torch.frombuffer
        monkeypatch.setattr(cifar10_parquet, "IMAGES_AT_ONCE", 4)
        monkeypatch.setattr(cifar10_parquet, "decode", lambda *args: decoded.append(args[0]) or decode(*args))
        monkeypatch.setattr(
            torch, "frombuffer", lambda *args, **options: tensors.append(1) or frombuffer(*args, **options)
        )
        root, cache = write_parquet(tmp_path / "root"), tmp_path / "cache"
        for _ in range(2):
            assert_is_small_cifar10(load_images("cifar10", root, cache))
        assert sorted(decoded) == sorted(content for name in ("train", "test") for content, _ in rows_of(name))
        assert len(tensors) == 2 + 1

    def test_torchvision_s_folder(self, tmp_path: Path) -> None:
        write_folder(tmp_path)
        check_available("cifar10", tmp_path)
        assert_is_small_cifar10(load_images("cifar10", tmp_path))

    def test_parquet_goes_first(self, tmp_path: Path) -> None:
        write_parquet(tmp_path)
        before = dataset_hash("cifar10", tmp_path)
        (write_folder(tmp_path) / CIFAR10.base_folder / "test_batch").write_bytes(b"")
        assert dataset_hash("cifar10", tmp_path) == before
        assert_is_small_cifar10(load_images("cifar10", tmp_path))

    def test_hash_is_the_content_s(self, tmp_path: Path) -> None:
        first = dataset_hash("cifar10", write_parquet(tmp_path / "a"))
        assert first == dataset_hash("cifar10", write_parquet(tmp_path / "b", HUB_NAMES))
        write_rows(tmp_path / "a" / "test.parquet", rows_of("test")[::-1])
        assert first != dataset_hash("cifar10", tmp_path / "a")
        assert first != dataset_hash("cifar10", write_folder(tmp_path / "c"))

    def test_copies_to_a_device(self, tmp_path: Path) -> None:
        moved = load_images("cifar10", write_parquet(tmp_path)).test.to(torch.device("meta"))
        assert moved.images.is_meta
        assert moved.labels.is_meta


class TestCache:
    @pytest.mark.parametrize("write", [write_parquet, write_folder])
    def test_decoded_once(self, tmp_path: Path, no_decoding: Callable[[], None], write: Callable[[Path], Path]) -> None:
        root, cache = write(tmp_path / "root"), tmp_path / "cache"
        assert_is_small_cifar10(load_images("cifar10", root, cache))
        assert [path.name for path in cache.iterdir()] == [f"cifar10-{dataset_hash('cifar10', root)}.safetensors"]
        no_decoding()
        assert_is_small_cifar10(load_images("cifar10", root, cache))

    def test_other_files_are_decoded_anew(self, tmp_path: Path) -> None:
        root, cache = write_parquet(tmp_path / "root"), tmp_path / "cache"
        load_images("cifar10", root, cache)
        write_rows(root / "test.parquet", rows_of("test")[::-1])
        assert load_images("cifar10", root, cache).test.labels.tolist() == labels("test")[::-1]
        assert len(list(cache.iterdir())) == 2

    @pytest.mark.parametrize("damaged", ["truncated", "a byte", "empty", "shapes", "labels", "names", "no checksum"])
    def test_damaged_file_is_ignored_and_rewritten(
        self, tmp_path: Path, no_decoding: Callable[[], None], damaged: str
    ) -> None:
        root, cache = write_parquet(tmp_path / "root"), tmp_path / "cache"
        load_images("cifar10", root, cache)
        (path,) = cache.iterdir()
        whole, tensors = path.read_bytes(), load_file(path)
        if damaged == "truncated":
            cut_in_half(path)
        elif damaged == "a byte":
            path.write_bytes(whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:])
        elif damaged == "empty":
            path.write_bytes(b"")
        else:
            changed = {
                "shapes": {name: tensor[1:].contiguous() for name, tensor in tensors.items()},
                "labels": tensors | {"test/labels": tensors["test/labels"][1:].contiguous()},
                "names": {"images": tensors["train/images"]},
                "no checksum": tensors,
            }[damaged]
            save_file(changed, path)
        assert_is_small_cifar10(load_images("cifar10", root, cache))
        no_decoding()
        assert_is_small_cifar10(load_images("cifar10", root, cache))
        assert [entry.name for entry in cache.iterdir()] == [path.name]

    def test_wrong_shapes_with_a_right_checksum(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root, cache = write_parquet(tmp_path / "root"), tmp_path / "cache"
        load_images("cifar10", root, cache)
        monkeypatch.setitem(FORMATS, "cifar10", ImageFormat(3, 32, 32, 10, N_TRAIN, N_TEST + 1))
        with pytest.raises(DatasetError, match=r"test\.parquet: expected 5 rows, found 4"):
            load_images("cifar10", root, cache)

    def test_refused_files_leave_no_cache(self, tmp_path: Path) -> None:
        root, cache = write_parquet(tmp_path / "root"), tmp_path / "cache"
        write_rows(root / "train.parquet", [(b"no image", 0)] * N_TRAIN)
        with pytest.raises(DatasetError, match=r"do not decode .* in row 0"):
            load_images("cifar10", root, cache)
        assert not cache.exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no copy of CIFAR-10 beside the repository")
def test_published_test_split() -> None:
    """Class counts and channel means as they are known of CIFAR-10's test split."""
    split = read_split(SHARED / "test.parquet", 10_000, ImageFormat(3, 32, 32, 10, 50_000, 10_000))
    assert split.labels.bincount().tolist() == [1000] * 10
    mean = split.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4942, 0.4851, 0.4504]).double(), atol=2e-3, rtol=0)
