"""The benchmark times the same quantity three ways, and refuses what it does not know."""

from __future__ import annotations

import re

import pytest
from running import TOY_MODELS

from experiments.benchmark import main

CNN = ("model=cifar10_cnn", *TOY_MODELS["cifar10_cnn"], "analysis.n_examples=5")


def test_all_estimators_of_the_chosen_layers_are_timed_and_agree(tmp_path, capsys):
    main([*CNN, "analysis.probes.n=40", f"output_directory={tmp_path}", "--layer", "blocks.3", "--layer", "readout"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("Jacobian Gram on 5 examples, float64, ")
    assert [line.split(":")[0] for line in lines] == ["blocks.3", "readout"]
    assert head.endswith(" 40 probes")
    for line in lines:
        match = re.search(
            r"closed form (\S+) s, differentiation (\S+) s, (\d+) times; (\S+) apart; "
            r"probes (\S+) s, error (\S+), by their halves (\S+)$",
            line,
        )
        assert match is not None, line
        assert float(match[1]) > 0
        assert float(match[2]) > 0
        assert float(match[4]) < 1e-10
        assert float(match[5]) > 0
        assert 1e-6 < float(match[6]) < 0.5
        assert 1 / 4 < float(match[7]) / float(match[6]) < 4


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("analysis.probes.n=1", "analysis.probes.n=1: expected greater than or equal to 2"),
        ("analysis.probes.over=features", "expected 'positions' or 'positions_and_features'"),
        ("analysis.probes.seed=-1", "analysis.probes.seed=-1: expected greater than or equal to 0"),
        ("analysis.probes.number=4", "unknown configuration key analysis.probes.number"),
    ],
)
def test_probes_that_there_cannot_be_are_refused(tmp_path, capsys, argument, expected):
    with pytest.raises(SystemExit) as ended:
        main([*CNN, f"output_directory={tmp_path}", argument])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


@pytest.mark.parametrize(
    ("argument", "expected"), [("block.3", "did you mean blocks.3?"), ("output", "expected some of")]
)
def test_an_unknown_layer_is_refused(tmp_path, capsys, argument, expected):
    with pytest.raises(SystemExit) as ended:
        main([*CNN, f"output_directory={tmp_path}", "--layer", argument])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--layer {argument}: no such node layer" in line
    assert expected in line
