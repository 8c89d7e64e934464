"""CIFAR-10 of ten images in every form it comes in, and what is expected of it."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import socket
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torchvision.datasets import CIFAR10

from models.vision.images import (
    CLASS_NAMES,
    FORMATS,
    DatasetError,
    ImageDataset,
    ImageFormat,
    check_available,
    load_images,
)

N_TRAIN, N_TEST = 6, 4
HUB_NAMES = {name: f"plain_text/{name}-00000-of-00001.parquet" for name in ("train", "test")}
FLAT_NAMES = {name: f"{name}.parquet" for name in ("train", "test")}
Rows = list[tuple[bytes | None, int | None]]


def pixels(name: str) -> np.ndarray:
    """Random images, height and width before channels."""
    n, seed = (N_TRAIN, 0) if name == "train" else (N_TEST, 1)
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def labels(name: str) -> list[int]:
    return [9, 0, 4, 4, 7, 1] if name == "train" else [3, 9, 0, 5]


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def rows_of(name: str) -> Rows:
    return list(zip(map(encoded, pixels(name)), labels(name), strict=True))


def write_rows(path: Path, rows: Rows) -> None:
    columns = {"img": [{"bytes": content, "path": None} for content, _ in rows], "label": [label for _, label in rows]}
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("img", image_type), ("label", pyarrow.int64())])
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns, schema=schema), path)


def write_parquet(root: Path, names: dict[str, str] = FLAT_NAMES) -> Path:
    for name, path in names.items():
        write_rows(root / path, rows_of(name))
    return root


def batch(name: str) -> bytes:
    """A batch as CIFAR-10's are: pickled by a NumPy that wrote a dtype's flags as integers."""
    data = pixels(name).transpose(0, 3, 1, 2).reshape(-1, 3072)
    pickled = pickle.dumps({"data": data, "labels": labels(name)}, protocol=2)
    flags_now, flags_then = b"\x89\x88\x87", b"K\x00K\x01\x87"
    assert pickled.count(flags_now) == 1
    return pickled.replace(flags_now, flags_then)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def folder_files() -> dict[str, bytes]:
    meta = pickle.dumps({"label_names": list(CLASS_NAMES["cifar10"])})
    return {"data_batch_1": batch("train"), "test_batch": batch("test"), "batches.meta": meta}


def write_folder(root: Path) -> Path:
    for name, content in folder_files().items():
        (root / CIFAR10.base_folder).mkdir(parents=True, exist_ok=True)
        (root / CIFAR10.base_folder / name).write_bytes(content)
    return root


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in folder_files().items():
            member = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_cifar10_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 of ten images, and no server to download it from."""
    monkeypatch.setitem(FORMATS, "cifar10", ImageFormat(3, 32, 32, 10, N_TRAIN, N_TEST))
    files = folder_files()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5(files["data_batch_1"])]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(files["batches.meta"])})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{unused_port()}/{CIFAR10.filename}")


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def assert_is_small_cifar10(dataset: ImageDataset) -> None:
    assert dataset.name == "cifar10"
    assert dataset.class_names[3] == "cat"
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        assert torch.equal(split.images, torch.from_numpy(pixels(name)).permute(0, 3, 1, 2))
        assert split.labels.tolist() == labels(name)


def refusal(root: Path) -> str:
    """What the data set is refused with, by loading; one line that says where it was looked for and what to do."""
    with pytest.raises(DatasetError) as caught:
        load_images("cifar10", root)
    message = str(caught.value)
    assert "\n" not in message
    assert f"data.root={root}" in message
    assert "uoft-cs/cifar10" in message
    assert "model.dataset=digits" in message
    return message


def refusal_before_the_run(root: Path) -> str:
    """The same message, when it must be known without decoding anything."""
    message = refusal(root)
    with pytest.raises(DatasetError, match=re.escape(message)):
        check_available("cifar10", root)
    return message
