"""Whether runs are logged to W&B's service, and whether it can be had now: asked once a process, answered in seconds.

Host and account are wandb's own. It is asked here rather than through wandb, whose own process goes on asking a service
that hangs, and is waited for when this one ends.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from experiments.config.schema import TrackingConfig
from experiments.pipeline.tracking_environment import mode_of
from libcore.messages import one_line
from models.errors import UserError

log = logging.getLogger(__name__)

SECONDS = 8.0
WHO_AM_I = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()
REFUSED = (401, 403)
"""HTTP statuses that say that the account is the trouble, not the service."""


def mode_now(config: TrackingConfig) -> str:
    """`mode_of`, but `offline` where the service does not answer; raises UserError as `check_tracking`."""
    mode = mode_of(config)
    if mode == "online" and (trouble := trouble_with_service()) is not None:
        log.warning("tracking: W&B cannot be reached (%s): the run is logged offline", trouble)
        return "offline"
    return mode


@cache
def wandb_module() -> ModuleType:
    """wandb, set up to be silent and to ask nobody for anything; each run is given a mode of its own.

    The parameters that a sweep's agent leaves in a file reach a run as overrides on its command line, which the
    configuration is composed of; W&B would write them over the configuration once more, as strings beside its keys.
    """
    os.environ.pop("WANDB_SWEEP_PARAM_PATH", None)
    import wandb

    wandb.setup(wandb.Settings(silent=True, mode="offline"))
    # Its reports on itself, which a process waits for when it ends, also where nobody takes them.
    with suppress(ImportError, AttributeError):
        import_module("wandb.analytics.opentelemetry.opentelemetry_proxy").disable()
    leave_out_imports(wandb)
    return wandb


def leave_out_imports(wandb: ModuleType) -> None:
    """Keep W&B from importing for every run what no run here uses: half a second and 0.4 s of processor time.

    That is its launcher's inputs, which nothing stages, and pandas, to see whether an image is a table of pandas's;
    asked without it, W&B goes by the type's name.
    """
    run, util = import_module("wandb.sdk.wandb_run").Run, import_module("wandb.util")
    if hasattr(run, "_detect_and_apply_job_inputs"):
        run._detect_and_apply_job_inputs = lambda _: None
    if hasattr(util, "pd_available"):
        vars(util)["pd_available"] = False


@cache
def trouble_with_service() -> str | None:
    """Why nothing can be uploaded, None where it can.

    Raises UserError where no account is logged in, or the service refuses the one that is.
    """
    settings = wandb_module().setup().settings
    settings.mode = "online"
    trouble = trouble_with(settings)
    if trouble is not None:
        leave_service_alone()
    return trouble


def leave_service_alone() -> None:
    """Nothing is sent any more."""
    wandb_module().setup().settings.mode = "offline"


def trouble_with(settings: Any) -> str | None:
    """The same, asked anew, of the service that W&B's `settings` name."""
    if not wandb_module().login(prompt=False, verify=False):
        raise UserError(
            f"tracking.mode=online: no W&B account is logged in at {settings.base_url}; expected `wandb login` first, "
            "or tracking.mode=offline"
        )
    try:
        answer = viewer(settings.base_url, settings.api_key)
    except HTTPError as error:
        if error.code not in REFUSED:
            return f"{settings.base_url}: {error.code} {error.reason}"
        answer = {}
    except (URLError, OSError, ValueError) as error:
        return f"{settings.base_url}: {one_line(getattr(error, 'reason', error))}"
    # An account without a key, by an identity token, is verified by wandb alone.
    if settings.api_key is not None and not (answer.get("data") or {}).get("viewer"):
        raise UserError(
            f"tracking.mode=online: {settings.base_url} refuses the W&B account that is logged in; expected "
            "`wandb login --relogin`, or tracking.mode=offline"
        )
    return None


def viewer(host: str, key: str | None) -> dict[str, dict[str, object] | None]:
    """What the service says of whose key this is; raises urllib's errors, and ValueError for no JSON object."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}"
    with urlopen(Request(f"{host}/graphql", data=WHO_AM_I, headers=headers), timeout=SECONDS) as response:
        answer = json.load(response)
    if not isinstance(answer, dict):
        raise ValueError(f"answers {one_line(answer)}; expected an object")
    return answer
