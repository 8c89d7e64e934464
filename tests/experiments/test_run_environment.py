"""What a run says of the code and the machine that it was made with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from experiments.pipeline import environment as of_run


@pytest.fixture
def not_asked_yet() -> Iterator[None]:
    of_run.own_commit.cache_clear()
    yield
    of_run.own_commit.cache_clear()


@pytest.mark.usefixtures("not_asked_yet")
def test_later_runs_of_a_process_name_the_code_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that change while a sweep goes on are not what its runs were made with."""
    commits = iter(["before", "after+changes"])
    monkeypatch.setattr(of_run, "git_commit", lambda folder: next(commits))
    device = torch.device("cpu")
    assert [of_run.environment(device)["git_commit"] for _ in range(2)] == ["before", "before"]
