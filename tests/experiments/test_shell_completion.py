"""Console scripts complete groups and options in the shells that people use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import clean_environment

from experiments.config.folder import CONFIG_DIRECTORY

SCRIPTS = Path(sys.executable).parent
METHODS = {f"method={path.stem}" for path in (CONFIG_DIRECTORY / "method").glob("*.yaml")}

BASH = """
eval "$(lib-run -sc install=bash)"
complete -p lib-run > /dev/null || exit 3
COMP_LINE="lib-run seed=1 method="; COMP_POINT=${#COMP_LINE}; COMP_WORDS=(lib-run seed=1 method=); COMP_CWORD=2
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
zmodload zsh/zpty
zpty terminal 'zsh -f -i'
zpty -w terminal 'autoload -Uz compinit bashcompinit; compinit -u -D; bashcompinit'
zpty -w terminal 'eval "$(lib-run -sc install=zsh)"; echo "install"ed'
zpty -r -m terminal said '*installed*'
zpty -w -n terminal $'lib-run method=sv\\t'
sleep 4
zpty -w terminal ' --cfg job'
for i in {1..100}; do
  sleep 0.2
  while zpty -r -t terminal chunk; do said+=$chunk; done
  [[ $said == *'name: svd'* ]] && break
done
print -r -- "$said"
"""


def shell(program: str, script: str, folder: Path) -> str:
    """What a shell prints that finds the console scripts first."""
    environment = clean_environment() | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}
    done = subprocess.run(
        [program, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not (SCRIPTS / "lib-run").exists(), reason="the console scripts are not installed")
class TestCompletion:
    def test_bash(self, tmp_path):
        assert set(shell("bash", BASH, tmp_path).split()) == METHODS

    @pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
    def test_zsh(self, tmp_path):
        # What is completed is carried out: the option by its whole name.
        assert "name: svd" in shell("zsh", ZSH, tmp_path)

    @pytest.mark.parametrize("script", ["lib-run", "lib-report", "lib-benchmark"])
    def test_every_script_has_help(self, tmp_path, script):
        done = subprocess.run(
            [SCRIPTS / script, "--help"],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert script in done.stdout or "experiments." in done.stdout
        assert done.stderr == ""
