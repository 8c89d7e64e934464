"""Reading a W&B offline run file back: the record log that `wandb sync` uploads."""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record, RunRecord

HEADER = b":W&B"
HEADER_LENGTH = 7
BLOCK = 2**15
PIECE_HEADER = 7
FULL, FIRST, LAST = 1, 2, 4


class UnfinishedFileError(Exception):
    """The file ends within its header or a record."""


@dataclass
class OfflineRun:
    """What one run file says.

    Attributes:
        run: name, project, group, tags.
        config: the configuration, without W&B's own `_wandb`.
        summary: the last word on every summary key, without W&B's own keys.
        history: one dictionary for every logged step, likewise.
        exit_code: None as long as the run has not ended.
        axes: by name of a defined metric, what it is drawn against.
        artifacts: type of each artifact, and the paths in it.
        environment: what W&B notes of the machine and the code.
    """

    run: RunRecord
    config: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None
    axes: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    environment: list[Any] = field(default_factory=list)


def read_offline_run(path: Path, timeout: float = 30.0) -> OfflineRun:
    """A `run-*.wandb` file to its end, which is waited for: W&B writes it in a process of its own."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            found = replay(path.read_bytes())
        except UnfinishedFileError:
            found = None
        if found is not None and found.exit_code is not None:
            return found
        assert time.monotonic() < deadline, f"{path} has not come to an end"
        time.sleep(0.05)


def replay(content: bytes) -> OfflineRun | None:
    """All records in order; None before there is a run."""
    found: OfflineRun | None = None
    for data in records(content):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found = OfflineRun(record.run, items(record.run.config.update))
        elif found is not None and kind == "summary":
            found.summary |= items(record.summary.update)
        elif found is not None and kind == "history":
            found.history.append(items(record.history.item))
        elif found is not None and kind == "metric" and record.metric.step_metric:
            found.axes[record.metric.name.replace("\\.", ".")] = record.metric.step_metric
        elif found is not None and kind == "artifact":
            found.artifacts[record.artifact.type] = [entry.path for entry in record.artifact.manifest.contents]
        elif found is not None and kind == "environment":
            found.environment.append(record.environment)
        elif found is not None and kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def items(updates: Any) -> dict[str, Any]:
    """Keys and values of config, summary or history items; a nested key is a path into a dictionary."""
    found: dict[str, Any] = {}
    for item in updates:
        path = [item.key] if item.key else list(item.nested_key)
        inner = found
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = json.loads(item.value_json)
    return without_own(found)


def without_own(content: dict[str, Any]) -> dict[str, Any]:
    """Without the keys that W&B adds by itself."""
    return {key: value for key, value in content.items() if not key.startswith("_")}


def records(content: bytes) -> list[bytes]:
    """The log's records: blocks of 32 KiB hold pieces `crc32, length, type`; a record may go over several blocks.

    Raises UnfinishedFileError for a file that is still being written.
    """
    if len(content) < HEADER_LENGTH:
        raise UnfinishedFileError
    assert content[: len(HEADER)] == HEADER, content[:HEADER_LENGTH]
    found: list[bytes] = []
    unfinished = b""
    at = HEADER_LENGTH
    while at < len(content):
        left_in_block = BLOCK - at % BLOCK
        if left_in_block < PIECE_HEADER:  # too little for another piece: filled up with zeros
            at += left_in_block
            continue
        header = content[at : at + PIECE_HEADER]
        length, kind = int.from_bytes(header[4:6], "little"), header[-1]
        piece = content[at + PIECE_HEADER : at + PIECE_HEADER + length]
        if len(header) < PIECE_HEADER or len(piece) < length:
            raise UnfinishedFileError
        assert zlib.crc32(bytes([kind]) + piece) == int.from_bytes(header[:4], "little"), f"damaged at {at}"
        assert (kind in (FULL, FIRST)) is (unfinished == b""), f"a record begins within another at {at}"
        unfinished += piece
        if kind in (FULL, LAST):
            found.append(unfinished)
            unfinished = b""
        at += PIECE_HEADER + length
    if unfinished:
        raise UnfinishedFileError
    return found
