"""A W&B service that cannot be had costs seconds and takes nothing with it; one that refuses the account is said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from offline_run import read_offline_run
from running import QUICK, command, read_json

KEY = "x" * 40
ONLINE = (*QUICK[:-2], "analysis.stages=[basis]", "tracking.mode=online")
MOST_SECONDS = 20.0


@contextmanager
def service(kind: str) -> Iterator[str]:
    """A service on the loopback address: its address. `stalls` knows the account and then says nothing any more."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("content-length") or 0)).decode(errors="replace")
            asks_who = "viewer" in asked and "Upsert" not in asked
            if kind == "slow" or (kind == "stalls" and not asks_who):
                ended.wait(60)
                return
            self.send_response({"refuses": 401, "fails": 500}.get(kind, 200))
            self.end_headers()
            who = {"id": "1"} if kind == "stalls" else None
            self.wfile.write(json.dumps({"data": {"viewer": who}}).encode())

        do_GET = do_HEAD = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def usual_seconds(tmp_path_factory) -> float:
    """What the run takes without a service."""
    folder, start = tmp_path_factory.mktemp("usual"), time.monotonic()
    assert command(folder, *ONLINE[:-1], "tracking.mode=offline").returncode == 0
    return time.monotonic() - start


def run_with(folder, address: str):
    """A run that is to be logged to this service, and the seconds that it took."""
    start = time.monotonic()
    ended = command(folder, *ONLINE, f"hydra.run.dir={folder}/run", WANDB_BASE_URL=address, WANDB_API_KEY=KEY)
    return ended, time.monotonic() - start


@pytest.mark.parametrize(
    ("kind", "reason"), [("slow", "timed out"), ("fails", "500"), ("stalls", "does not answer"), ("away", "refused")]
)
def test_the_run_goes_on_offline(tmp_path, usual_seconds, kind, reason):
    with service(kind) as address:
        ended, seconds = run_with(tmp_path, "http://127.0.0.1:9" if kind == "away" else address)
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert reason in said
    assert "logged offline" in said
    assert seconds < usual_seconds + MOST_SECONDS
    (path,) = (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")
    logged = read_offline_run(path)
    assert logged.exit_code == 0
    assert read_json(tmp_path / "run" / "metrics.json").items() <= logged.summary.items()
    assert f"wandb sync {path.parent.relative_to(tmp_path)}" in said


@pytest.mark.parametrize("kind", ["refuses", "knows nobody"])
def test_a_refused_account_is_said_before_the_run(tmp_path, kind):
    with service(kind) as address:
        ended, _ = run_with(tmp_path, address)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: tracking.mode=online: {address} refuses the W&B account")
    assert not (tmp_path / "run").exists()


def test_no_account(tmp_path):
    with service("stalls") as address:
        home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_MODE": "offline"}
        ended = command(tmp_path, *ONLINE, WANDB_BASE_URL=address, **home)
    assert ended.returncode == 2
    assert f"no W&B account is logged in at {address}; expected `wandb login` first" in ended.stderr


def test_an_account_in_a_netrc_is_one(tmp_path):
    with service("slow") as address:
        (tmp_path / ".netrc").write_text(f"machine {address.removeprefix('http://')}\n  login user\n  password {KEY}\n")
        (tmp_path / ".netrc").chmod(0o600)
        home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")}
        ended = command(tmp_path, *ONLINE, WANDB_BASE_URL=address, **home)
    assert ended.returncode == 0, ended.stderr
    assert "cannot be reached" in ended.stderr
