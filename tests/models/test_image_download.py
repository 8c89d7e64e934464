"""CIFAR-10 that is not there: downloaded whole, or refused soon and in one line."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cifar10_files import (
    archive,
    assert_is_small_cifar10,
    make_cifar10_small,
    md5,
    refusal,
    refusal_before_the_run,
)
from torchvision.datasets import CIFAR10

from models import reachable
from models.vision.images import DatasetError, check_available, dataset_hash, load_images


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar10_small(monkeypatch)


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that CIFAR-10 is downloaded from."""
    folder = tmp_path / "served"
    folder.mkdir()
    with HTTPServer(("127.0.0.1", 0), partial(SilentHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{CIFAR10.filename}")
        yield folder
        server.shutdown()


def test_download(tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive()
    (served / CIFAR10.filename).write_bytes(content)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(content))
    root = tmp_path / "not" / "yet"
    check_available("cifar10", root)
    (served / CIFAR10.filename).unlink()
    assert_is_small_cifar10(load_images("cifar10", root))
    assert [path.name for path in root.iterdir()] == [CIFAR10.base_folder]


class TestNothingThere:
    def test_unknown_name(self, tmp_path: Path) -> None:
        for function in (check_available, dataset_hash, load_images):
            with pytest.raises(DatasetError, match=r"no data set 'mnist'; expected one of cifar10, digits"):
                function("mnist", tmp_path)

    def test_no_such_root(self, tmp_path: Path) -> None:
        message = refusal_before_the_run(tmp_path / "absent")
        assert f"{tmp_path / 'absent'}: expected train.parquet and test.parquet or" in message
        assert f"found no such folder, and downloading {CIFAR10.url} failed" in message
        assert not (tmp_path / "absent").exists()

    def test_root_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "train.parquet").write_bytes(b"")
        assert "train.parquet: expected a folder, found a file" in refusal_before_the_run(tmp_path / "train.parquet")

    def test_empty_root(self, tmp_path: Path) -> None:
        assert f"found none of them, and downloading {CIFAR10.url} failed" in refusal_before_the_run(tmp_path)
        with pytest.raises(DatasetError, match=r"found none of them.*uoft-cs"):
            dataset_hash("cifar10", tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_server_that_never_answers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reachable, "ANSWER_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/{CIFAR10.filename}")
            start = time.monotonic()
            assert re.search(r"failed \((no answer within 0\.2 seconds|timed out)\)", refusal(tmp_path))
            assert time.monotonic() - start < 2

    def test_name_look_up_that_never_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ended = threading.Event()

        def look_up(*args: Any, **kwargs: Any) -> None:
            ended.wait(10)
            raise OSError("never said")

        monkeypatch.setattr(reachable, "ANSWER_SECONDS", 0.1)
        monkeypatch.setattr(reachable, "urlopen", look_up)
        start = time.monotonic()
        assert "no answer within 0.1 seconds" in refusal(tmp_path)
        assert time.monotonic() - start < 2
        ended.set()

    def test_server_without_the_file(self, tmp_path: Path, served: Path) -> None:
        assert served.is_dir()
        assert "HTTP Error 404" in refusal(tmp_path / "root")

    def test_truncated_download_leaves_nothing(
        self, tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = archive()
        (served / CIFAR10.filename).write_bytes(whole[: len(whole) // 2])
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(whole))
        before = socket.getdefaulttimeout()
        assert "File not found or corrupted" in refusal(tmp_path / "root")
        assert list((tmp_path / "root").iterdir()) == []
        assert socket.getdefaulttimeout() == before
