"""Inputs of every kind that are refused, in one line that names them: what reads them is called by itself.

A row is a name, what is done and parts of the line. Whole commands are tried in `test_bad_values.py` and
`test_bad_files.py`, reports on damaged runs in `test_damaged_runs.py`.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from running import TOY_MODELS, config_of
from safetensors.torch import save_file
from torch import Tensor

from experiments.config.composition import validated
from experiments.config.scores import with_tolerances
from experiments.config.sweep import set_value
from experiments.reporting.run_files import DamagedRunError, read_config, read_json
from experiments.sweeps.record import SweepRecord
from libcore.methods.file import read_basis_file
from libcore.numerical_errors import NumericalError
from models.errors import UserError
from models.pretrained_transformer.hub import ModelNotFound, model_folder
from models.transformer.configuration import ConfigurationError, read_configuration
from models.transformer.text import Cut, read_text, split_text
from models.transformer.vocabulary import Encoding, TextError, encode_byte_pairs, read_tokenizer
from models.vision.cifar10_parquet import ParquetFiles
from models.vision.images import FORMATS, DatasetError
from models.weights import CheckpointError, ModelFile, check_shapes

REFUSALS = (
    UserError,
    CheckpointError,
    TextError,
    DatasetError,
    ConfigurationError,
    ModelNotFound,
    DamagedRunError,
    NumericalError,
)
HUGE = 10**30
NAN, INF = float("nan"), float("inf")


@cache
def plain(kind: str) -> dict[str, Any]:
    """A model's toy configuration as dictionaries."""
    return config_of(f"model={kind}", *TOY_MODELS[kind]).model_dump()


def configured(kind: str, key: str, value: object) -> None:
    """What a configuration with this value becomes, its tolerances among it."""
    config = copy.deepcopy(plain(kind))
    *parents, last = key.split(".")
    if not set_value(config, key, value):  # a list or a group
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    with_tolerances(validated(config), "accuracy")


MODULAR, SMALL, BLOCKS, CNN, MLP = (
    "modular_addition",
    "small_transformer",
    "block_diagonal_mlp",
    "cifar10_cnn",
    "cifar10_mlp",
)
PRETRAINED = "pretrained_transformer"
VALUES: list[tuple[str, str, object, str]] = [
    (MODULAR, "seed", -1, "greater than or equal to 0"),
    (MODULAR, "model.kind", "\n", "expected one of"),
    (MODULAR, "seed", HUGE, "less than 4294967296"),
    (MODULAR, "seed", 1.5, "integer"),
    (MODULAR, "seed", True, "integer"),
    (MODULAR, "threads", 0, "greater than or equal to 1"),
    (MODULAR, "threads", 10**9, "less than or equal to 1024"),
    (MODULAR, "output_directory", "", "not empty"),
    (MODULAR, "output_directory", "x" * 256, "256 bytes"),
    (MODULAR, "output_directory", "/".join(["x" * 200] * 30), "expected at most 4095"),
    (MODULAR, "output_directory", "a\0b", "null character"),
    (MODULAR, "data.root", "y" * 300, "300 bytes"),
    (MODULAR, "data.root", "a\0b", "null character"),
    (MODULAR, "device", "gpu", "auto, cpu"),
    (MODULAR, "dtype", "float16", "float64"),
    (MODULAR, "model.modulus", 10**6, "the run needs at least"),
    (MODULAR, "model.modulus", HUGE, "less than or equal to 2147483647"),
    (MODULAR, "model.modulus", NAN, "integer"),
    (MODULAR, "model.d_mlp", 10**12, "less than or equal to 2147483647"),
    (MODULAR, "model.d_mlp", 10**9, "of it for weights"),
    (MODULAR, "model.n_heads", -3, "greater than or equal to 1"),
    (MODULAR, "model.split_seed", 2**64, "less than 9223372036854775808"),
    (MODULAR, "model.split_seed", -1, "greater than or equal to 0"),
    (MODULAR, "model.train_fraction", 0.0, "greater than 0"),
    (MODULAR, "model.train_fraction", NAN, "less than 1"),
    (MODULAR, "model.checkpoint", "z" * 400, "400 bytes"),
    (MODULAR, "model.randomize", "biases", "expected"),
    (MODULAR, "model.training.learning_rate", INF, "finite"),
    (MODULAR, "model.training.learning_rate", NAN, "a finite number"),
    (MODULAR, "model.training.learning_rate", -1.0, "greater than 0"),
    (MODULAR, "model.training.max_steps", HUGE, "less than or equal to 2147483647"),
    (MODULAR, "model.training.batch_size", HUGE, "less than or equal to 2147483647"),
    (MODULAR, "model.training.betas", [0.9], "at least 2 items"),
    (MODULAR, "model.training.betas", [0.9, 1.0], "less than 1"),
    (SMALL, "model.n_layers", 10**9, "less than or equal to 1000"),
    (SMALL, "model.d_model", 10**8, "the run needs at least"),
    (SMALL, "model.sequence_length", 10**7, "attention scores of a sequence"),
    (SMALL, "model.sequence_length", 1, "greater than or equal to 2"),
    (SMALL, "model.vocabulary_size", 10**9, "less than or equal to 1048576"),
    (SMALL, "model.vocabulary_size", 100, "of byte pairs"),
    (SMALL, "model.split_seed", 2**64, "less than 9223372036854775808"),
    (SMALL, "data.path", "t" * 300, "300 bytes"),
    (PRETRAINED, "model.sequence_length", 10**8, "attention scores of a sequence"),
    (PRETRAINED, "model.name", "", "not empty"),
    (PRETRAINED, "model.name", "n" * 300, "300 bytes"),
    (PRETRAINED, "model.trust_remote_code", "yes", "boolean"),
    (PRETRAINED, "model.n_train_sequences", HUGE, "less than or equal to 2147483647"),
    (BLOCKS, "model.n_layers", 10**9, "less than or equal to 1000"),
    (BLOCKS, "model.n_blocks", 10**5, "less than or equal to 20"),
    (BLOCKS, "model.points_per_block", HUGE, "less than or equal to 1000000"),
    (BLOCKS, "model.n_outputs_per_block", 10**9, "the run needs at least"),
    (BLOCKS, "model.correlation", 1.0, "less than 1"),
    (CNN, "model.channels", [10**9], "less than or equal to 2048"),
    (CNN, "model.channels", [1, 1, 1, 1], "at most 3 items"),
    (CNN, "model.channels", [], "at least one"),
    (MLP, "model.hidden_sizes", [8192] * 200, "the run needs at least"),
    (MLP, "model.hidden_sizes", [0], "greater than or equal to 1"),
    (MLP, "model.training.epochs", HUGE, "less than or equal to 2147483647"),
    (MLP, "model.training.momentum", 1.0, "less than 1"),
    (MODULAR, "analysis.n_points", 10**9, "less than or equal to 1000"),
    (MODULAR, "analysis.probes.n", 10**9, "less than or equal to 100000"),
    (MODULAR, "analysis.probes.n", 1, "greater than or equal to 2"),
    (MODULAR, "analysis.probes.seed", HUGE, "less than 4294967296"),
    (MODULAR, "analysis.communities.seed", HUGE, "less than 4294967296"),
    (MODULAR, "analysis.communities.resolution", 0.0, "greater than 0"),
    (MODULAR, "analysis.communities.resolution", INF, "finite"),
    (MODULAR, "analysis.resamples", 10**9, "less than or equal to 1000000"),
    (MODULAR, "analysis.n_examples", HUGE, "less than or equal to 2147483647"),
    (MODULAR, "analysis.n_score_examples", 0, "greater than or equal to 1"),
    (MODULAR, "analysis.n_edge_examples", 0, "greater than or equal to 1"),
    (MODULAR, "analysis.ablate.node_search", "some", "every"),
    (MODULAR, "analysis.memory_budget", "9" * 400 + "GB", "at least 1MB"),
    (MODULAR, "analysis.memory_budget", "1000000GB", "expected a part of it"),
    (MODULAR, "analysis.memory_budget", -5, "at least 1MB"),
    (MODULAR, "analysis.disk_budget", -5, "0B for none"),
    (MODULAR, "analysis.disk_budget", "much", "such as 8GB"),
    (MODULAR, "analysis.tolerances", [5.0], "up to 1"),
    (MODULAR, "analysis.tolerances", [-0.1], "greater than or equal to 0"),
    (MODULAR, "analysis.tolerances", [0.1, 0.1], "both 0.1"),
    (MODULAR, "analysis.tolerances", [0.0, 1e-14], "both 0"),
    (MODULAR, "analysis.tolerances", [1e-14], "1e-14 is 0"),
    (MODULAR, "analysis.tolerances", [NAN], "finite"),
    (MODULAR, "analysis.tolerances", [INF], "finite"),
    (MODULAR, "analysis.tolerances", [], "at least one"),
    (MODULAR, "analysis.truncation", -1.0, "greater than or equal to 0"),
    (MODULAR, "analysis.truncation", NAN, "finite"),
    (MODULAR, "analysis.truncation", 2.0, "under 1"),
    (MODULAR, "analysis.stages", ["basis", "basis"], "basis is there twice"),
    (MODULAR, "analysis.stages", ["edges"], "expected basis"),
    (MODULAR, "tracking.project", "a/b", "without / "),
    (MODULAR, "tracking.tags", ["x" * 65], "at most 64"),
]
"""Model, key, value, what the line says of it."""


@pytest.mark.parametrize(("kind", "key", "value", "expected"), VALUES)
def test_values(kind: str, key: str, value: object, expected: str) -> None:
    with pytest.raises(UserError) as error:
        configured(kind, key, value)
    line = str(error.value)
    assert "\n" not in line
    assert expected in line
    assert key.rpartition(".")[2] in line


Write = Callable[[Path], object]


def write(content: str) -> Write:
    return lambda path: path.write_text(content)


def link_to(target: str) -> Write:
    return lambda path: path.symlink_to(target)


IRREGULAR: list[tuple[str, Write, str]] = [
    ("a pipe", os.mkfifo, "no regular file"),
    ("a device", link_to("/dev/zero"), "no regular file"),
    ("a loop", lambda path: path.symlink_to(path), "too many levels of symbolic links"),
]
"""What no reader may wait for."""


def weights_of(path: Path) -> dict[str, Tensor]:
    return check_shapes(ModelFile.read(path).tensors, {"w": (4, 4)}, (), path, (".running_var",))


def read_parquet(path: Path) -> None:
    ParquetFiles(path, path).check(FORMATS["cifar10"])


def state(**tensors: Any) -> Write:
    return lambda path: torch.save(tensors, path)


def stored(tensor: Tensor) -> Write:
    return lambda path: save_file({"to_basis/a": tensor}, path)


W = torch.ones(4, 4)


def quantized(path: Path) -> None:
    torch.save({"w": torch.quantize_per_tensor(W, 0.1, 0, torch.qint8)}, path)


FILES: list[tuple[str, Callable[[Path], object], Write, str]] = [
    ("checkpoint", weights_of, state(w=W.to_sparse()), "sparse"),
    ("checkpoint", weights_of, state(w=W.to("meta")), "meta"),
    ("checkpoint", weights_of, quantized, "quantized"),
    ("checkpoint", weights_of, state(w=W.to(torch.float8_e5m2)), "float8_e5m2"),
    ("checkpoint", weights_of, state(w=W.to(torch.complex64)), "complex64"),
    ("checkpoint", weights_of, state(w=W.int()), "int32"),
    ("checkpoint", weights_of, state(w=W.bool()), "bool"),
    ("checkpoint", weights_of, state(w=W * NAN), "not finite"),
    ("checkpoint", weights_of, state(w=W * INF), "not finite"),
    ("checkpoint", weights_of, state(w=W[:3]), "another shape"),
    ("checkpoint", weights_of, state(w=W, v=W), "does not belong"),
    ("checkpoint", weights_of, state(), "is missing"),
    ("checkpoint", weights_of, state(w={"v": W}), "expected named tensors"),
    ("checkpoint", weights_of, write("{}"), "not readable"),
    ("checkpoint", weights_of, write("M"), "not readable"),
    ("checkpoint", weights_of, Path.mkdir, "is a directory"),
    ("checkpoint", weights_of, lambda path: None, "no such file"),
    ("basis file", read_basis_file, write("{}"), "not readable"),
    ("basis file", read_basis_file, stored(W.int()), "int32"),
    ("basis file", read_basis_file, Path.mkdir, "is a directory"),
    ("text", read_text, write(""), "empty"),
    ("text", read_text, lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8"),
    ("text", read_text, lambda path: path.touch() or os.truncate(path, 2**40), "expected at most"),
    ("text", read_text, lambda path: None, "no such file"),
    ("JSON of a run", read_json, write("{"), "no whole JSON"),
    ("JSON of a run", read_json, write('{"a": NaN}'), "no number in JSON"),
    ("JSON of a run", read_json, write("[" * 100_000), "nested too deeply"),
    ("JSON of a run", read_json, lambda path: path.touch() or os.truncate(path, 2**40), "expected at most"),
    ("model's config.json", read_configuration, write("[1]"), "no JSON object"),
    ("model's config.json", read_configuration, write("[" * 100_000), "cannot be read"),
    ("model's config.json", read_configuration, write("{"), "cannot be read"),
    ("model's config.json", read_configuration, lambda path: path.write_bytes(b'{"\xff": 1}'), "cannot be read"),
    ("model's folder", lambda path: model_folder(str(path)), write(""), "found a file"),
    ("model's folder", lambda path: model_folder(str(path)), Path.mkdir, "found none"),
    ("model's folder", lambda path: model_folder(str(path)), lambda path: None, "no such folder"),
    ("tokenizer", lambda path: read_tokenizer(path.parent), write("{}"), "no tokenizer that can be read"),
    ("Parquet", read_parquet, write("PAR1"), "cannot be read as one"),
    ("Parquet", read_parquet, Path.mkdir, "no regular file"),
]
FILES += [("checkpoint", weights_of, *irregular) for _, *irregular in IRREGULAR]
FILES += [("basis file", read_basis_file, *irregular) for _, *irregular in IRREGULAR]
FILES += [("text", read_text, *irregular) for _, *irregular in IRREGULAR]
FILES += [("JSON of a run", read_json, *irregular) for _, *irregular in IRREGULAR]
FILES += [("Parquet", read_parquet, make, expected) for _, make, expected in IRREGULAR]
"""What is read, by what, how it is written, what the line says of it."""


@pytest.mark.filterwarnings("ignore")  # torch's own, of prototypes
@pytest.mark.parametrize(("what", "read", "make", "expected"), FILES)
def test_files(tmp_path: Path, what: str, read: Callable[[Path], object], make: Write, expected: str) -> None:
    names = {"basis file": "basis.safetensors", "tokenizer": "tokenizer.json"}
    path = tmp_path / names.get(what, "file.pt")
    make(path)
    with pytest.raises((*REFUSALS, ValueError)) as error:
        read(path)
    line = str(error.value)
    assert "\n" not in line
    assert expected in line
    assert path.name in line or str(tmp_path) in line


class TestOthers:
    def test_a_configuration_of_aliases(self, tmp_path: Path) -> None:
        lines = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 15)]
        (tmp_path / "config.yaml").write_text("\n".join(["a0: &a0 [x]", *lines]))
        with pytest.raises(DamagedRunError, match=r"config\.yaml: holds aliases, which no run writes"):
            read_config(tmp_path)

    @pytest.mark.parametrize("line", ["{", "[]", '{"number": 1}', "[" * 100_000])
    def test_a_sweep_s_damaged_record(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "runs.jsonl").write_text(line + "\n")
        with pytest.raises(UserError, match=r"runs\.jsonl: line 1 is damaged"):
            SweepRecord(tmp_path).notes()

    @pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 100_000])
    def test_a_folder_of_no_sweep(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(UserError, match="holds no sweep"):
            SweepRecord(tmp_path).content()

    def test_texts_that_do_not_suit(self) -> None:
        with pytest.raises(TextError, match="vocabulary_size=2: the text has 4 different characters"):
            encode_byte_pairs("abcd", 2)
        encoding = Encoding(torch.arange(9), tuple("abcdefghi"))
        with pytest.raises(TextError, match="too short: 9 tokens make 0 sequences of 10"):
            split_text(encoding, Cut(10, 0.5, 0))
        with pytest.raises(TextError, match="no such token"):
            split_text(encoding, Cut(3, 0.5, 0, beginning_of_sequence=True))


def test_there_are_enough_of_them() -> None:
    """Of each kind several, and none twice."""
    assert len(VALUES) + len(FILES) >= 120
    assert len({json.dumps(row, default=str) for row in VALUES}) == len(VALUES)
    assert {what for what, *_ in FILES} >= {"checkpoint", "basis file", "text", "JSON of a run", "Parquet", "tokenizer"}
