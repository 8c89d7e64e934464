"""What a user can get wrong at the front door, each told in one line.

As a user has it: in a process without the suite's own checks of types, which would speak first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

CALLS = {
    "labels in a column": (
        "accuracy(x, y[:, None])",
        "labels have shape [6, 1]; expected [example], one per input (6)",
    ),
    "labels by position": ("accuracy(x, y.expand(6, 6))", "labels have shape [6, 6]; expected [example], one per inp"),
    "one label": ("accuracy(x, y[:1])", "labels have shape [1]; expected [example], one per input (6)"),
    "fewer inputs": ("accuracy(x[:4], y)", "labels have shape [6]; expected [example], one per input (4)"),
    "labels of floats": ("accuracy(x, y.float())", "labels have dtype torch.float32; expected integers, the number of"),
    "labels of bools": ("accuracy(x, y > 0)", "labels have dtype torch.bool; expected integers"),
    "labels in a list": ("accuracy(x, y.tolist())", "labels are a list; expected a tensor"),
    "no path": ("fit(chain, x, method='file', path=None)", "path=None: method file reads a file; expected its path"),
    "path of another type": ("fit(chain, x, method='file', path=3)", "path=3: method file reads a file; expected its"),
    "missing file": ("fit(chain, x, method='file', path='no.st')", "method.path=no.st: no such file; expected safet"),
    "estimator": (
        "fit(chain, x, estimator='stochastc')",
        "estimator=stochastc: no such choice (did you mean stochastic?); expected one of auto, closed_form, exact, sto",
    ),
    "estimator of edges": (
        "interaction_edges(chain, x, fit(chain, x).bases, estimator='exct')",
        "estimator=exct: no such choice (did you mean exact?); expected one of auto",
    ),
    "no estimator": ("fit(chain, x, estimator=None)", "estimator=None: no such choice; expected one of auto, "),
    "named option": (
        "fit(chain, x, jacobian='pth')",
        "jacobian=pth: no such choice (did you mean path?); expected one",
    ),
    "integration": (
        "fit(chain, x, integration='trapezodal')",
        "integration rule 'trapezodal' (did you mean trapezoidal?): expected one of gradient, trapezoidal, gauss",
    ),
    "truncation rule": ("Truncation('relativ')", "rule=relativ: no such choice (did you mean relative?); expected one"),
    "probes over": ("Probes(over='position')", "over=position: no such choice (did you mean positions?); expected one"),
    "function not decorated": (
        "fit(chain, x, method=undecorated)",
        "method=undecorated: a function that is no method; d",
    ),
    "method of another type": ("fit(chain, x, method=3)", "method=3: expected a name, one of file, gradient_pca, "),
    "no method": ("fit(chain, x, method=None)", "method=None: expected a name, one of file, gradient_pca, "),
    "truncation by number": ("fit(chain, x, truncation=1e-3)", "truncation=0.001: expected a Truncation"),
    "probes by number": ("fit(chain, x, probes=3)", "probes=3: expected a Probes"),
    "narrow inputs": (
        "fit(chain, x[:, :3])",
        "inputs have shape [6, 3] and dtype torch.float32, which the chain does not take (mat1 and mat2 shapes cannot",
    ),
    "inputs of more dimensions": (
        "fit(chain, x[:, None])",
        "inputs have shape [6, 1, 4]; expected [example, 4], as the",
    ),
    "inputs of a chain by hand": (
        "fit(by_hand, x[:, :3])",
        "inputs have shape [6, 3] and dtype torch.float32, which the chain does not take (mat1 and mat2 shapes cannot",
    ),
    "empty inputs": ("fit(chain, x[:0])", "inputs have shape [0, 4]; expected [example, 4], one example or more"),
    "inputs of no tensor": ("fit(chain, x.tolist())", "inputs are a list; expected a tensor [example, ...]"),
    "inputs not finite": ("fit(chain, x / 0)", "inputs of shape [6, 4] hold NaN or infinity; expected finite numbers"),
    "ablation of narrow inputs": (
        "ablate(fit(chain, x), chain, accuracy(x[:, :3], y))",
        "inputs have shape [6, 3] and dtype torch.float32, which the chain does not take",
    ),
    "ablation of nothing": (
        "ablate(fit(chain, x), chain, accuracy(x[:0], y[:0]))",
        "inputs have shape [0, 4]; expected",
    ),
    "chain of another width": (
        "ablate(fit(chain, x), wider, accuracy(x, y))",
        "2: 6 coordinates in the graph, 8 in the chain; expected the graph's own chain",
    ),
    "graph file": ("InteractionGraph.load(sys.argv[0])", ": not readable as safetensors ("),
    "node layer by number": (
        "Chain.from_module(net, x, [0, 'output'])",
        "node_layers [0, 'output']: 0 is no string; expected submodules' names",
    ),
    "node layers in a string": (
        "Chain.from_module(net, x, 'output')",
        "node_layers='output': expected a list of submodules' names",
    ),
    "dtype of integers": (
        "Chain.from_module(net, x, dtype=torch.int32)",
        "dtype=torch.int32: expected a floating-point dtype, such as torch.float64",
    ),
    "no module": (
        "Chain.from_module(torch.tanh, x)",
        "module is a builtin_function_or_method; expected a torch.nn.Module",
    ),
    "example not finite": (
        "Chain.from_module(net, x / 0)",
        "example_inputs [6, 4] hold NaN or infinity; expected finite numbers",
    ),
    "output not finite": (
        "Chain.from_module(nn.Sequential(nn.Linear(4, 4), Log()), x)",
        "Sequential: NaN or infinity in the output on the example; expected finite numbers",
    ),
}
"""What is called, and how its one line begins, or what is in it."""

SCRIPT = """
import json, sys
import torch
from torch import nn
from libcore import *
from libcore.constant import with_constant
from libcore.estimators.stochastic import Probes
from libcore.sections import AffineSection

def undecorated(chain, inputs, statistics, settings):
    return {}

class Log(nn.Module):
    def forward(self, x):
        return torch.log(-x.abs())

def network(width):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))

torch.manual_seed(0)
x, y, net = torch.randn(6, 4), torch.arange(6) % 3, network(5)
chain, wider = (Chain.from_module(one, x) for one in (net, network(7)))
by_hand = Chain(("in", "out"), (AffineSection(torch.randn(5, 3)),), lambda x: with_constant(x)[:, None], False)
found = {}
for name, call in json.load(sys.stdin).items():
    try:
        eval(call)
        found[name] = "nothing was refused"
    except Exception as error:
        found[name] = ("" if isinstance(error, ValueError) else type(error).__name__ + ": ") + str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By call, what its ValueError says."""
    script = tmp_path_factory.mktemp("front_door") / "calls.py"
    script.write_text(SCRIPT)
    calls = json.dumps({name: call for name, (call, _) in CALLS.items()})
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, script],
        input=calls,
        cwd=script.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CALLS)
def test_is_told_in_one_line(messages: dict[str, str], name: str) -> None:
    message, expected = messages[name], CALLS[name][1]
    assert expected in message if expected.startswith(":") else message.startswith(expected)
    assert "\n" not in message
