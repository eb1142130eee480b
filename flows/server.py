"""A Prefect server and worker of this machine's own: quiet, private and quick."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from screening.errors import UserError
from screening.io import atomic_write

HOST = "127.0.0.1"
ANSWER_TIMEOUT_S = 30.0
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.25
LAST_LINES = 5
"""Lines of a log that a message repeats."""

PRIVATE = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
"""No usage statistics, no advertisements."""

SERVER = PRIVATE | {
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    # In memory, leases are gone after a restart, and what they held stays taken for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
    # A hundred runs to come of every deployment are much to write, and nobody looks at them.
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
    "PREFECT_SERVER_UI_V2_ENABLED": "true",
    # Otherwise the pages ask port 4200, whatever the server listens on.
    "PREFECT_SERVER_UI_API_URL": "/api",
}
WORKER = PRIVATE | {
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "15",
}


def check_server(url: str) -> None:
    """Make sure that a server of a version that we can talk to answers at ``url``.

    Raises
    ------
    UserError
        Nothing answers, or something that is no Prefect server, or one of another version.
    """
    try:
        with urllib.request.urlopen(f"{url}/admin/version", timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
            theirs = str(json.load(answer))
    except (OSError, ValueError):
        raise UserError(
            f"The Prefect server at {url} does not answer; start it with `screen up` or `prefect "
            "server start`, or unset PREFECT_API_URL to run without one."
        ) from None
    ours = importlib.metadata.version("prefect")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise UserError(
            f"The Prefect server at {url} has version {theirs}, but this software works with "
            f"{ours}; start the server from the same environment, or install prefect=={theirs}."
        )


def check_port(port: int) -> None:
    """Make sure that a server can listen on ``port``.

    Raises
    ------
    UserError
        Something else listens there, or it is not allowed.
    """
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"Port {port} cannot be used ({error.strerror}); choose another one with --port, "
                "or stop what listens there."
            ) from None


@contextlib.contextmanager
def running(
    command: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A ``prefect`` command in a session of its own, stopped with all it has started at the end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def wait_for_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers.

    Raises
    ------
    UserError
        It has ended, or takes longer than it ever should.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(
                f"The Prefect server ended at once: {last_words(log)} The whole log is {log}."
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=ANSWER_TIMEOUT_S):  # noqa: S310
                return
        except (OSError, ValueError):
            time.sleep(POLL_S)
    raise UserError(
        f"The Prefect server did not answer within {START_TIMEOUT_S:.0f} s; see its log {log}."
    )


def keep_to_itself(pages: Path) -> None:
    """Let the UI's pages ask their own server and nobody else.

    They go to a service of usage statistics for its settings even where statistics are off.
    """
    rule = '<meta http-equiv="Content-Security-Policy" content="connect-src \'self\'">'
    for page in pages.glob("*/index.html"):
        text = page.read_text(encoding="utf-8")
        if rule not in text:
            atomic_write(page, text.replace("<head>", f"<head>{rule}", 1))


def last_words(log: Path) -> str:
    """The end of a log, as one line."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return " ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip()) or "no output."


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end it after a while; calculations have sessions of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
            return
