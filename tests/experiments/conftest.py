"""What several tests of runs and pages share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest
from chromium import Page, chromium_path, open_browser
from running import QUICK, exit_status, quick_run, refusal, run_here


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """The command configures logging for its process: other tests in it log as if it had not."""
    root, known = logging.getLogger(), logging.root.manager.loggerDict
    before = (list(root.handlers), root.level)
    levels = {name: (one.level, one.disabled) for name, one in known.items() if isinstance(one, logging.Logger)}
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.level = before
    for name, one in known.items():
        if isinstance(one, logging.Logger):
            one.level, one.disabled = levels.get(name, (logging.NOTSET, False))
    root.manager._clear_cache()  # pyright: ignore[reportAttributeAccessIssue] - what loggers remember of levels


@pytest.fixture
def quick(tmp_path_factory):
    return quick_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Calls the command in `tmp_path` with arguments that it must refuse; returns the one line that it says."""
    return partial(refusal, tmp_path, monkeypatch, capsys)


@pytest.fixture
def carry_out(tmp_path, monkeypatch):
    """Calls the command in `tmp_path`, the current folder from now on; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    return partial(exit_status, tmp_path)


@pytest.fixture
def variant(quick, tmp_path):
    """Carries out the quick run with other overrides, sharing its cache; returns its directory."""

    def carry_out(*overrides: str, name: str = tmp_path.name):
        return run_here(quick.parents[1], name, *QUICK, *overrides)

    return carry_out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = chromium_path()
    assert path is not None
    with open_browser(path, tmp_path_factory.mktemp("profile")) as page:
        yield page
