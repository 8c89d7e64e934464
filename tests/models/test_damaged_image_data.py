"""CIFAR-10 with something wrong: refused in one line that says which file, what was expected and what was found."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from cifar10_files import (
    FLAT_NAMES,
    HUB_NAMES,
    N_TRAIN,
    Rows,
    cut_in_half,
    encoded,
    make_cifar10_small,
    md5,
    pixels,
    refusal,
    refusal_before_the_run,
    rows_of,
    write_folder,
    write_parquet,
    write_rows,
)
from pyarrow import parquet
from torchvision.datasets import CIFAR10

from models.vision.cifar10_parquet import checked_labels
from models.vision.images import DatasetError, check_available


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar10_small(monkeypatch)


def damage(change: Callable[[Rows], Any]) -> Callable[[Path], None]:
    """Writes the training rows after a change."""

    def write(path: Path) -> None:
        rows = rows_of("train")
        change(rows)
        write_rows(path, rows)

    return write


def spoil_pages(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])


def other_columns(**columns: Any) -> Callable[[Path], None]:
    return lambda path: parquet.write_table(pyarrow.table(columns), path)


def grey(rows: Rows) -> None:
    rows[2] = (encoded(pixels("train")[0, :, :, 0]), 1)


def narrow(rows: Rows) -> None:
    rows[2] = (encoded(pixels("train")[0, :, :31]), 1)


def cut_image(kind: str) -> Callable[[Rows], None]:
    def cut(rows: Rows) -> None:
        whole = encoded(pixels("train")[3], kind)
        rows[3] = (whole[: len(whole) // 2], 1)

    return cut


def alter_page(path: Path) -> None:
    """A file whose pages have checksums, one bit changed within an image."""
    table = parquet.read_table(path)
    parquet.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    places = [found.start() for found in re.finditer(b"IDAT", content)]
    content[places[len(places) // 2] + 40] ^= 1  # the first and the last are in statistics
    path.write_bytes(content)


def replace_row(row: int, content: bytes | None = b"", label: int | None = 0) -> Callable[[Rows], None]:
    def replace(rows: Rows) -> None:
        rows[row] = (rows[row][0] if content == b"" else content, label)

    return replace


IMAGES = [{"bytes": b"", "path": None}] * N_TRAIN


class TestDamagedParquet:
    @pytest.mark.parametrize("missing", ["train", "test"])
    @pytest.mark.parametrize("names", [FLAT_NAMES, HUB_NAMES])
    def test_one_of_two_files(self, tmp_path: Path, names: dict[str, str], missing: str) -> None:
        write_parquet(write_folder(tmp_path), names)
        (tmp_path / names[missing]).unlink()
        assert f"{tmp_path / names[missing]}: no such file; expected it beside" in refusal_before_the_run(tmp_path)

    @pytest.mark.parametrize(
        ("write", "expected"),
        [
            (cut_in_half, r"expected a Parquet file, found \d+ bytes that cannot be read as one"),
            (lambda path: path.write_bytes(b""), r"expected a Parquet file, found 0 bytes"),
            (damage(lambda rows: rows.pop()), "expected 6 rows, found 5"),
            (damage(lambda rows: rows.append(rows[0])), "expected 6 rows, found 7"),
            (
                other_columns(img=IMAGES, fine_label=[1] * 6),
                r"expected columns img .* found img \(struct<.* fine_label",
            ),
            (other_columns(label=[1] * 6), r"expected columns img .* and label .* found label \(int64\)"),
            (other_columns(img=[b""] * 6, label=[1] * 6), r"expected columns .* found img \(binary\)"),
            (
                other_columns(img=[{"bytes": "text"}] * 6, label=[1] * 6),
                r"expected columns .* found img \(struct<bytes: string>\)",
            ),
            (other_columns(img=IMAGES, label=["cat"] * 6), r"expected columns .* found img .*, label \(string\)"),
        ],
    )
    def test_metadata_that_does_not_fit(self, tmp_path: Path, write: Callable[[Path], None], expected: str) -> None:
        path = write_parquet(tmp_path) / "train.parquet"
        write(path)
        assert re.search(f"{re.escape(str(path))}: {expected}", refusal_before_the_run(tmp_path))

    def test_folder_in_place_of_a_file(self, tmp_path: Path) -> None:
        (write_parquet(tmp_path) / "test.parquet").unlink()
        (tmp_path / "test.parquet").mkdir()
        assert "test.parquet: expected a Parquet file, found no regular file" in refusal_before_the_run(tmp_path)

    @pytest.mark.parametrize(
        ("write", "expected"),
        [
            (spoil_pages, r"expected a Parquet file, found \d+ bytes that cannot be read as one"),
            (damage(replace_row(4, label=10)), "expected labels from 0 to 9, found 10 in row 4"),
            (damage(replace_row(5, label=-1)), "expected labels from 0 to 9, found -1 in row 5"),
            (damage(replace_row(5, label=None)), "expected labels from 0 to 9, found None in row 5"),
            (damage(grey), "expected 3x32x32 images in mode RGB, found 32x32 pixels in mode L in row 2"),
            (damage(narrow), "expected 3x32x32 images in mode RGB, found 31x32 pixels in mode RGB in row 2"),
            (damage(replace_row(0, content=None)), "found no image in row 0"),
            (damage(replace_row(1, content=b"not one")), "found 7 bytes that do not decode .* in row 1"),
            (damage(cut_image("PNG")), r"found \d+ bytes that do not decode .* in row 3"),
            (damage(cut_image("JPEG")), r"found \d+ bytes that do not decode .* in row 3"),
            (alter_page, r"expected a Parquet file, found \d+ bytes that cannot be read as one .*CRC"),
            (damage(cut_image("BMP")), r"found \d+ bytes that do not decode .* in row 3"),
        ],
    )
    def test_content_that_does_not_fit(self, tmp_path: Path, write: Callable[[Path], None], expected: str) -> None:
        path = write_parquet(tmp_path) / "train.parquet"
        write(path)
        assert re.search(f"{re.escape(str(path))}: .*{expected}", refusal(tmp_path))

    def test_a_label_too_many_of_one_class(self) -> None:
        balanced = [0, 1, 2, 0, 1, 2]
        assert checked_labels(Path("train.parquet"), balanced, 3).tolist() == balanced
        with pytest.raises(DatasetError, match="expected each label 2 times, found 0 3 times"):
            checked_labels(Path("train.parquet"), [0, 1, 2, 0, 1, 0], 3)

    @pytest.mark.parametrize("names", [FLAT_NAMES, HUB_NAMES])
    def test_what_a_file_of_sums_says_counts(self, tmp_path: Path, names: dict[str, str]) -> None:
        write_parquet(tmp_path, names)
        lines = [f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names.values()]
        (tmp_path / "SHA256SUMS").write_text("".join(lines))
        check_available("cifar10", tmp_path)
        write_rows(tmp_path / names["train"], rows_of("train")[::-1])
        line = refusal_before_the_run(tmp_path)
        assert f"{tmp_path / names['train']}: damaged: expected SHA-256 {lines[0].split()[0]} of SHA256SUMS" in line


class TestDamagedFolder:
    @pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
    def test_missing_file(self, tmp_path: Path, name: str) -> None:
        path = write_folder(tmp_path) / CIFAR10.base_folder / name
        path.unlink()
        assert f"{path}: no such file; expected it in torchvision's" in refusal_before_the_run(tmp_path)

    def test_nothing_is_unpickled_that_is_not_the_published_file(self, tmp_path: Path) -> None:
        path = write_folder(tmp_path) / CIFAR10.base_folder / "data_batch_1"
        expected = md5(path.read_bytes())
        path.write_bytes(pickle.dumps(Unpickled()))
        found = md5(path.read_bytes())
        assert f"{path}: damaged: expected md5 {expected}, found {found}" in refusal_before_the_run(tmp_path)


class Unpickled:
    """Code that would run if a batch were unpickled."""

    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('unpickled')",))
