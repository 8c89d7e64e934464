"""Random values, overrides and damage to files: refused in one line or taken, never a traceback.

The same examples each time; ten minutes of others with `-m slow`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import TOY_MODELS, config_of
from safetensors.torch import save_file
from test_refused_inputs import REFUSALS, read_parquet, weights_of

from experiments import run as command
from experiments.config.composition import validated
from experiments.config.scores import with_tolerances
from experiments.pipeline.cache_entry import DistrustedEntryError, StageResult, read_entry, write_entry
from experiments.reporting.run_files import read_config, read_json
from libcore.graph import InteractionGraph
from libcore.layer_by_layer import identity_basis
from libcore.methods.file import read_basis_file
from libcore.statistics import statistics_of
from models.training_state import TrainingEvaluation, read_training_state, write_training_state
from models.transformer.configuration import read_configuration
from models.transformer.documents import rows_of
from models.transformer.gguf_file import check_gguf
from models.transformer.text import read_text
from models.transformer.token_files import mapped_tokens
from models.transformer.vocabulary import read_tokenizer

REFUSED = (*REFUSALS, ValueError, DistrustedEntryError)
FEW, MANY = 150, 6000

Read = Callable[[Path], object]


def examples(n: int) -> settings:
    """Nothing is shrunk for long, nothing is remembered between machines."""
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=n == FEW,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def refused_or_taken() -> Iterator[None]:
    """A refusal is one line."""
    line = ""
    try:
        yield
    except REFUSED as error:
        line = str(error).strip()
    assert "\n" not in line


# ---- values of keys ----

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(
        ["", "null", "a", "../x", "x" * 300, "a\0b", "~", "true", "1e400", "Λ", "cuda:9", "first", "float32"]
    ),
    st.text(max_size=12),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=4), st.dictionaries(st.text(max_size=4), SCALARS, max_size=2))


@cache
def plain(kind: str) -> dict[str, Any]:
    return config_of(f"model={kind}", *TOY_MODELS[kind]).model_dump()


@cache
def keys(kind: str) -> tuple[tuple[str, ...], ...]:
    """Paths of all keys, those of groups among them."""

    def below(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for key, value in node.items():
            yield (*path, key)
            if isinstance(value, dict):
                yield from below(value, (*path, key))

    return tuple(below(plain(kind), ()))


def changed_configuration(data: st.DataObject) -> None:
    """One to three values changed, a key made up now and then."""
    kind = data.draw(st.sampled_from(sorted(TOY_MODELS)))
    config = copy.deepcopy(plain(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(keys(kind)))
        node: Any = config
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[data.draw(st.sampled_from([last, last, last, f"{last}s"]))] = data.draw(VALUES)
    with refused_or_taken():
        with_tolerances(validated(config), "accuracy")


@examples(FEW)
@given(st.data())
def test_any_value_of_any_key(data: st.DataObject) -> None:
    changed_configuration(data)


@pytest.mark.slow
@examples(MANY)
@given(st.data())
def test_many_values_of_any_key(data: st.DataObject) -> None:
    changed_configuration(data)


# ---- overrides, as they are typed ----

KEYS = [
    "seed",
    "model",
    "method",
    "model.modulus",
    "analysis.tolerances",
    "analysis.stages",
    "hydra.run.dir",
    "nothing",
    "+x",
]
TYPED = st.one_of(
    st.tuples(st.sampled_from(KEYS), st.text(max_size=10)).map("=".join),
    st.tuples(
        st.sampled_from(KEYS), st.sampled_from(["1,2", "[1", "{a:", "${seed}", "${x", "'", "\\", "range(3)"])
    ).map("=".join),
    st.tuples(st.sampled_from(["", "+", "++", "~", "-", "--"]), st.sampled_from(KEYS)).map("".join),
    st.text(max_size=12),
)


def typed_command(overrides: list[str]) -> None:
    """Composed and printed, not carried out: status 0, or 2 with one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lib-run", "--cfg", "job", *overrides])
        said: list[str] = []
        patch.setattr("sys.stderr", Stream(said))
        patch.setattr("sys.stdout", Stream([]))
        with pytest.raises(SystemExit) as left:
            command.main()
    lines = [line for line in "".join(said).splitlines() if line.strip()]
    assert left.value.code in (0, None, 2), (overrides, lines)
    assert "Traceback" not in "".join(said)
    assert len(lines) <= 1, (overrides, lines)


class Stream:
    """What is written, in a list."""

    def __init__(self, written: list[str]) -> None:
        self.written = written

    def write(self, text: str) -> int:
        """As a file has it."""
        self.written.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """Nobody looks."""
        return False


@examples(40)
@given(st.lists(TYPED, min_size=1, max_size=3))
def test_any_override(overrides: list[str]) -> None:
    typed_command(overrides)


@pytest.mark.slow
@examples(1500)
@given(st.lists(TYPED, min_size=1, max_size=3))
def test_many_overrides(overrides: list[str]) -> None:
    typed_command(overrides)


# ---- damaged files ----


def graph_file(path: Path) -> None:
    activation = torch.cat([torch.randn(20, 3, dtype=torch.float64), torch.ones(20, 1, dtype=torch.float64)], 1)
    moments = statistics_of(activation, has_constant=True)
    basis = identity_basis(moments.gram.diagonal().clone(), has_constant=True)
    edges = {"a": torch.ones(4, 4, dtype=torch.float64)}
    InteractionGraph(("a", "b"), {"a": moments, "b": moments}, {"a": basis, "b": basis}, edges, {"method": "pca"}).save(
        path
    )


def entry(path: Path) -> None:
    write_entry(
        path.parent / "0123456789abcdef0123", StageResult({"x": torch.ones(3)}, {"a": [1, 2]}), {"resources": {}}
    )
    path.write_bytes((path.parent / "0123456789abcdef0123" / "manifest.json").read_bytes())


def entry_with(path: Path) -> object:
    folder = path.parent / "0123456789abcdef0123"
    (folder / "manifest.json").write_bytes(path.read_bytes())
    return read_entry(folder)


def parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as writer

    table = pyarrow.table({"label": [1, 2], "img": [{"bytes": b"x", "path": None}] * 2})
    writer.write_table(table, path, write_page_checksum=True)


def rows_as_parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.table({"text": ["Once upon a time.", "Λ"], "n": [1, 2]}), path)


def gguf(path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(16)
    writer.add_array("tokenizer.ggml.tokens", ["a", "Λ"])
    writer.add_tensor("output.weight", np.ones((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


W = torch.ones(4, 4)
READERS: dict[str, tuple[str, Callable[[Path], object], Read]] = {
    "safetensors checkpoint": ("w.safetensors", lambda path: save_file({"w": W}, path), weights_of),
    "state dict": ("w.pt", lambda path: torch.save({"w": W}, path), weights_of),
    "basis file": ("b.safetensors", lambda path: save_file({"to_basis/a": W}, path), read_basis_file),
    "graph": ("graph.safetensors", graph_file, InteractionGraph.load),
    "cache entry": ("manifest", entry, entry_with),
    "training state": (
        "s.safetensors",
        lambda path: write_training_state(path, {"w": W}, [TrainingEvaluation(1, 0.5, 0.5, 0.1)]),
        lambda path: read_training_state(path, torch.device("cpu")),
    ),
    "metrics": ("metrics.json", lambda path: path.write_text(json.dumps({"a/b": 1.5, "c": [1, None]})), read_json),
    "configuration of a run": (
        "config.yaml",
        lambda path: path.write_text(yaml.safe_dump({"seed": 0, "model": {"kind": "cifar10_mlp"}})),
        lambda path: read_config(path.parent),
    ),
    "text": ("t.txt", lambda path: path.write_text("Once upon a time, Λ.\n"), read_text),
    "model's config.json": (
        "config.json",
        lambda path: path.write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8})),
        read_configuration,
    ),
    "tokenizer": (
        "tokenizer.json",
        lambda path: path.write_text(json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}}})),
        lambda path: read_tokenizer(path.parent),
    ),
    "Parquet": ("train.parquet", parquet, read_parquet),
    "rows of text, Parquet": ("rows.parquet", rows_as_parquet, lambda path: list(rows_of(path, 10**6))),
    "rows of text, JSON": (
        "rows.jsonl",
        lambda path: path.write_text('{"text": "Once upon a time, Λ"}\n{"text": "", "n": 1}\n'),
        lambda path: list(rows_of(path, 10**6)),
    ),
    "tokens": ("tokens.npy", lambda path: np.save(path, np.arange(20, dtype=np.int32)), mapped_tokens),
    "GGUF": ("model.gguf", gguf, check_gguf),
}

DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "delete", "replace"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, damage: list[tuple[str, float, bytes]]) -> bytes:
    """Each piece of damage at a share of the length."""
    for kind, where, piece in damage:
        at = int(where * len(content))
        if kind == "flip" and at < len(content):
            content = content[:at] + bytes([content[at] ^ (1 << piece[0] % 8)]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(piece) :]
        else:
            content = content[:at] + piece + content[at + len(piece) :]
    return content


def read_damaged(base: Path, kind: str, damage: list[tuple[str, float, bytes]]) -> None:
    """The reader's own refusal, or a result."""
    name, write, read = READERS[kind]
    folder = base / kind.replace(" ", "_")
    path = folder / name
    if not folder.exists():
        folder.mkdir()
        write(path)
        path.with_suffix(".whole").write_bytes(path.read_bytes())
    path.write_bytes(damaged(path.with_suffix(".whole").read_bytes(), damage))
    with refused_or_taken():
        read(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", READERS)
class TestDamagedFiles:
    def test_whole_ones_are_read(self, base: Path, kind: str) -> None:
        read_damaged(base, kind, [])

    @examples(FEW)
    @given(damage=DAMAGE)
    def test_any_damage(self, base: Path, kind: str, damage: list[tuple[str, float, bytes]]) -> None:
        read_damaged(base, kind, damage)

    @pytest.mark.slow
    @examples(MANY)
    @given(damage=DAMAGE)
    def test_much_damage(self, base: Path, kind: str, damage: list[tuple[str, float, bytes]]) -> None:
        read_damaged(base, kind, damage)
