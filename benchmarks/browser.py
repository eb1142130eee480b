"""Debian's Chromium, driven through its DevTools protocol: what a page shows, and its picture."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
WIDE, NARROW = (1400, 1000), (420, 900)
START_S = 60.0
PAGE_S = 150.0


class Browser:
    """One page of a Chromium of its own."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: dict[str, str] = {}
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol and its answer; what happens meanwhile is noted."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PAGE_S))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            self.requests[message["params"]["requestId"]] = message["params"]["request"]["url"]
        elif message.get("method") == "Network.loadingFailed":
            if message["params"].get("blockedReason"):  # before it left the browser
                self.requests.pop(message["params"]["requestId"], None)
        elif message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:500])

    def look(self, size: tuple[int, int] = WIDE, dark: bool = False) -> None:
        """Set the size of the window, in CSS pixels, and whether the reader likes it dark."""
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def offline(self, away: bool = True) -> None:
        """Take the network away, or bring it back."""
        self.call(
            "Network.emulateNetworkConditions", offline=away, latency=0,
            downloadThroughput=-1, uploadThroughput=-1,
        )  # fmt: skip

    def open(self, url: str, until: str = "true") -> None:
        """Go to a page and wait until an expression holds there."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && ({until})")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float | None = None) -> None:
        """Wait until a JavaScript expression holds."""
        deadline = time.monotonic() + (PAGE_S if seconds is None else seconds)
        while True:
            with contextlib.suppress(AssertionError):  # the page may be on its way to another
                if self.run(f"Boolean({condition})"):
                    return
            assert time.monotonic() < deadline, f"never: {condition}\n{self.text()[:2000]}"
            time.sleep(0.2)

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def asked(self, *own: str) -> set[str]:
        """Addresses that pages asked for, but for those that begin with one of ``own``."""
        return {u for u in self.requests.values() if not u.startswith((*own, "data:", "blob:"))}

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what the page looks like, the part below the window too if ``whole``."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {**size, "x": 0, "y": 0, "scale": 1}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def too_wide(self) -> list[str]:
        """Elements that reach beyond the window's right edge and cannot be scrolled to."""
        found = self.run(TOO_WIDE)
        return [str(element) for element in found]

    def cut(self, within: str) -> list[str]:
        """Elements of a box that reach beyond its right edge, over what is beside it or hidden."""
        return [str(element) for element in self.run(CUT.replace("BOX", json.dumps(within)))]


CUT = """
(() => {
  const box = document.querySelector(BOX), right = box.getBoundingClientRect().right;
  return [...box.querySelectorAll('*')].filter(e => {
    const own = e.getBoundingClientRect();
    return own.width > 0 && own.right > right + 1;
  }).map(e => e.tagName + ' ' + e.innerText.slice(0, 40) + ' ' + e.getBoundingClientRect().right);
})()
"""

TOO_WIDE = """
(() => {
  const scrolls = e => e && e !== document.body && e !== document.documentElement &&
    (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(e).overflowX) ||
     scrolls(e.parentElement));
  return [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.right > innerWidth + 1 && !scrolls(e.parentElement);
  }).map(e => e.tagName + '.' + e.className + ' ' + e.getBoundingClientRect().right);
})()
"""


def installed() -> str | None:
    """Path of Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """A browser with an empty profile below ``home``."""
    from websockets.sync.client import connect

    program = installed()
    assert program is not None, "Chromium is not installed (Debian: apt-get install chromium)"
    profile = home / "profile"
    profile.mkdir(parents=True)
    with (home / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + START_S
        while not (port_file.exists() and port_file.read_text().strip()):
            assert time.monotonic() < deadline, (home / "chromium.log").read_text()
            assert process.poll() is None, (home / "chromium.log").read_text()
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = [p for p in json.load(answer) if p["type"] == "page"]
        # Nobody reads while a test waits for something else, so no pings either.
        address = page["webSocketDebuggerUrl"]
        with connect(address, max_size=None, proxy=None, ping_interval=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
