"""Names and patterns in `analysis.node_layers`."""

from __future__ import annotations

import pytest

from models.node_layer_selection import select_names

KNOWN = ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.1.hook_resid_pre", "output")
PRE, MID, PRE_1, OUTPUT = KNOWN


@pytest.mark.parametrize(
    ("chosen", "selected"),
    [
        ([PRE, OUTPUT], (PRE, OUTPUT)),
        (["*"], KNOWN),
        (["blocks.*.hook_resid_pre"], (PRE, PRE_1)),
        (["blocks.0.*", OUTPUT], (PRE, MID, OUTPUT)),
        # A name among patterns need not stand where its layer is.
        ([OUTPUT, "blocks.?.hook_resid_pre"], (PRE, PRE_1, OUTPUT)),
        (["blocks.[01].hook_resid_pre", PRE], (PRE, PRE_1)),
    ],
)
def test_selected_layers_are_in_the_model_s_order(chosen, selected):
    assert select_names(chosen, KNOWN) == selected


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (["blocks.0.resid_pre", OUTPUT], "no such node layer.*did you mean blocks.0.hook_resid_pre"),
        (["blocks.2.*"], r"blocks\.2\.\*: matches no node layer"),
        ([OUTPUT, PRE], "in the model's order"),
        ([PRE, PRE], "each once"),
        ([PRE], "1 node layer; expected at least 2"),
        (["*mid"], "1 node layer; expected at least 2"),
    ],
)
def test_what_cannot_be_analysed_is_refused(chosen, says):
    with pytest.raises(ValueError, match=says):
        select_names(chosen, KNOWN)
