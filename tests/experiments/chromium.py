"""A headless Chromium for tests of pages: the DevTools protocol over a pipe, with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

# Chromium reads commands from descriptor 3 and answers on 4. `subprocess` hands descriptors on under their own numbers,
# so a small process renumbers them and becomes Chromium; both are moved away first, lest one overwrite the other.
LAUNCHER = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def chromium_path() -> str | None:
    """The browser named by the environment variable CHROMIUM, else the one on the path, else None."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One open page.

    Attributes:
        errors: uncaught exceptions and error messages of the console, in order.
        requests: addresses that were asked for over anything but `file:` and `data:`.
    """

    def __init__(self, commands: int, answers: int, timeout: float) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._commands, self._answers, self._timeout = commands, answers, timeout
        self._unread = b""
        self._n_sent = 0
        self._loaded = False
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Issue a command of the protocol and return its result. Raises RuntimeError if Chromium refuses it."""
        self._n_sent += 1
        message: dict[str, Any] = {"id": self._n_sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._n_sent:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, path: Path, width: int = 1280, height: int = 800, fragment: str = "") -> None:
        """Load a local file, at `#fragment`, in a window of this many CSS pixels and wait until it has run."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        # Another fragment of the page that is open would only be scrolled to.
        for address in (
            "about:blank",
            f"{path.resolve().as_uri()}#{fragment}" if fragment else path.resolve().as_uri(),
        ):
            self._loaded = False
            self.send("Page.navigate", url=address)
            while not self._loaded:
                self._receive()

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression, awaited if it is a promise. Raises RuntimeError if it throws."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float) -> None:
        """A real mouse event: "mouseMoved", "mousePressed" or "mouseReleased", of the left button."""
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def key(self, name: str) -> None:
        """Press and release a key by its DOM name, such as "Enter" or "ArrowDown"."""
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[name]
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def _receive(self) -> dict[str, Any]:
        """The next message, its errors and requests noted. Raises TimeoutError if none comes, EOFError at the end."""
        deadline = time.monotonic() + self._timeout
        while b"\0" not in self._unread:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no message from Chromium within {self._timeout} s")
            chunk = os.read(self._answers, 2**16)
            if not chunk:
                raise EOFError("Chromium closed the connection")
            self._unread += chunk
        raw, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(raw)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, detail: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            thrown = detail["exceptionDetails"]
            self.errors.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif event == "Runtime.consoleAPICalled" and detail["type"] in ("error", "assert"):
            self.errors.append(str([argument.get("value") for argument in detail["args"]]))
        elif event == "Log.entryAdded" and detail["entry"]["level"] == "error":
            self.errors.append(detail["entry"]["text"])
        elif event == "Network.requestWillBeSent" and not detail["request"]["url"].startswith(("file:", "data:")):
            self.requests.append(detail["request"]["url"])


@contextmanager
def open_browser(browser: str, profile: Path, timeout: float = 60.0) -> Iterator[Page]:
    """A fresh Chromium with a page of its own, ended when the block is left.

    Args:
        browser: the executable.
        profile: an empty folder for what Chromium writes.
        timeout: seconds without any message after which waiting is given up.
    """
    command_end, commands = os.pipe()
    answers, answer_end = os.pipe()
    arguments = [browser, *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(command_end), str(answer_end), *arguments],
        pass_fds=(command_end, answer_end),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HOME": str(profile)},
    )
    os.close(command_end)
    os.close(answer_end)
    try:
        yield Page(commands, answers, timeout)
    finally:
        os.close(commands)  # Chromium ends itself when its pipe is closed
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answers)
