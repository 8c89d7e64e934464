"""What all tests share: seeded randomness, and one core for each of several workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# The same examples in every run, so that a new failure is a change of the code.
# `--hypothesis-profile=explore` draws others.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers beside each other, and what they start: threads of more than there are cores wait for one another.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reference",
        metavar="DIR",
        help="the paper's artefacts, as `python -m experiments.import_published` writes them; by default ../shared's",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Parity tests are collected by what is there, which they look for when they are imported."""
    if (folder := config.getoption("--reference")) is not None:
        os.environ["PARITY_REFERENCE"] = os.path.abspath(folder)


@pytest.fixture
def generator() -> torch.Generator:
    """A random generator in the same state at the start of every test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def denormals_as_they_were() -> Iterator[None]:
    """Training and runs flush denormals for the whole process; other tests draw numbers among them."""
    yield
    torch.set_flush_denormal(False)
