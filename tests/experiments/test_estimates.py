"""What a run is said to take: as its only result, and before a stage that takes long."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from running import carry_out_toy, toy_config

from experiments.benchmark import main as benchmark
from experiments.pipeline import estimate
from experiments.reporting.finished_runs import FinishedRun, read_run
from libcore.costs.cost import Cost
