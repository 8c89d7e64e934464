"""The tasks of one SLURM step (`srun --ntasks=N`) as the processes of one run: `torchrun`'s variables from SLURM's."""

from __future__ import annotations

import os
import re

from models.errors import UserError

TASKS = "SLURM_STEP_NUM_TASKS"
"""Set for what `srun` starts, and not for a batch script or a shell that has tasks to give."""
FIRST_PORT, N_PORTS = 20_000, 20_000
"""Below those that systems give away by themselves; which one, the job and the step say, to all tasks alike."""


def take_tasks_of_step() -> None:
    """Before anything asks how many processes there are; nothing where another launcher has said, or there is one task.

    Raises UserError where SLURM's variables say nothing sensible.
    """
    if "WORLD_SIZE" in os.environ or os.environ.get(TASKS, "1") == "1":
        return
    try:
        job, step = int(os.environ.get("SLURM_JOB_ID", "0")), int(os.environ.get("SLURM_STEP_ID", "0"))
        count, rank = int(os.environ[TASKS]), int(os.environ["SLURM_PROCID"])
        local = int(os.environ.get("SLURM_LOCALID", "0"))
    except (KeyError, ValueError) as error:
        raise UserError(f"{TASKS}={os.environ[TASKS]}: {error}; expected the numbers that srun sets") from error
    os.environ |= {
        "WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", first_node(os.environ.get("SLURM_STEP_NODELIST", "localhost"))),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(FIRST_PORT + (101 * job + step) % N_PORTS)),
    }


def first_node(nodes: str) -> str:
    """Of a list as SLURM writes it, `node[003-005,7],login`; raises UserError for what is none."""
    match = re.match(r"([^\[\],]+)(?:\[([^\[\],-]+)[^\]]*\]([^,\[]*))?(?:,|$)", nodes)
    if match is None:
        raise UserError(f"SLURM_STEP_NODELIST={nodes}: expected names of nodes, such as node[003-005]")
    name, number, rest = match.groups()
    return name + (number or "") + (rest or "")
