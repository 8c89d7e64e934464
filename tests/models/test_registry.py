"""Models are found by their folders, and nothing of them is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from models import model_kinds, schema_of, validated_model
from models.errors import UserError
from models.room import Room

PROJECT = Path(__file__).resolve().parents[2]
KINDS = {
    "modular_addition",
    "cifar10_mlp",
    "cifar10_cnn",
    "block_diagonal_mlp",
    "small_transformer",
    "pretrained_transformer",
}


def test_every_folder_with_a_schema_is_a_model_with_a_room():
    assert set(model_kinds()) == KINDS
    for kind in KINDS:
        module, _, name = schema_of(kind).room.partition(":")
        assert module == f"models.{kind}.room"
        assert issubclass(getattr(import_module(module), name), Room)


def test_schemas_import_nothing_heavy():
    code = (
        "import sys, models.own.factory; from models import model_kinds, schema_of;"
        "[schema_of(kind) for kind in model_kinds()];"
        "print(sorted({'torch', 'transformers', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_kind_that_there_is_not():
    with pytest.raises(UserError, match=r"model\.kind=modular: no such model \(did you mean modular_addition\?\); exp"):
        validated_model({"kind": "modular"})
    with pytest.raises(UserError, match=r"configuration key model\.kind is missing"):
        validated_model({"modulus": 7})
    with pytest.raises(ValueError, match="expected the keys of a model"):
        validated_model(None)
