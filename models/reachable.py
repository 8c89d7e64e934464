"""Whether there is a network, known soon: download clients try again and again."""

from __future__ import annotations

import threading
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ANSWER_SECONDS = 5.0
"""How long a server may take to answer at all."""


def check_reachable(url: str) -> None:
    """Raises OSError or HTTPException if the server does not answer within `ANSWER_SECONDS`.

    Asked in a thread that can be left behind, since looking up a host's name knows no time limit.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=ANSWER_SECONDS):
                outcome.append(None)
        except (OSError, HTTPException) as error:
            if isinstance(error, HTTPError):
                error.close()
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} seconds")
    if outcome[0] is not None:
        raise outcome[0]
