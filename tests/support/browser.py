"""A headless Chromium, driven over its own protocol: pages from text or files, what they ask for, and what axe finds.

The protocol goes through a pair of pipes, so no port is opened and nothing is installed for it.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from capabilities import fetched

Scheme = Literal["light", "dark"]
SECONDS = 30.0

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "about:blank"),
)
# A page may not reach out; what it tries is blocked, and seen.
_AXE_RUN = "axe.run(document, {resultTypes: ['violations', 'incomplete']}).then(found => JSON.stringify(found))"


class Page:
    """One tab. `requests` has every address that it asked for, `complaints` every error that it told the console."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the tab and return its result."""
        return self._browser.call(method, self._session, **parameters)

    def hear(self, method: str, told: dict[str, Any]) -> None:
        """Take note of an event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(told["args"]))

    def show(self, file: Path, *, width: int = 1280, height: int = 900, scheme: Scheme = "light") -> float:
        """Open a file and return the seconds until it is laid out."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.look(scheme)
        self.requests.clear()
        self.complaints.clear()
        self._browser.forget("Page.loadEventFired")
        begin = time.perf_counter()
        self.call("Page.navigate", url=file.resolve().as_uri())
        self._browser.wait_for("Page.loadEventFired")
        self.evaluate("document.documentElement.getBoundingClientRect().height")
        return time.perf_counter() - begin

    def look(self, scheme: Scheme = "light", media: str = "screen") -> None:
        """Choose light or dark, and screen or print."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def evaluate(self, script: str) -> Any:
        """Return what a script makes of the page; a promise is waited for."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_until(self, script: str) -> Any:
        """Return what a script makes of the page, as soon as that is neither false nor empty."""
        until = time.monotonic() + SECONDS
        while True:
            found = self.evaluate(script)
            if found:
                return found
            assert time.monotonic() < until, f"{script} found nothing in {SECONDS:g} s"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and release a key, such as ``Tab``, ``Enter`` or ``Escape``."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        told = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def point_at(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, to: Path) -> None:
        """Write what is seen, the part below the fold too, as PNG."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(told["data"]))

    def printed(self, to: Path) -> None:
        """Write the page as PDF, A4."""
        told = self.call("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
        to.write_bytes(base64.b64decode(told["data"]))

    def violations(self, axe: str) -> list[str]:
        """Return what axe finds wrong, with the places."""
        if not self.evaluate("typeof axe === 'object'"):
            self.evaluate(axe + ";0")
        found = json.loads(self.evaluate(_AXE_RUN))
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:160]}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]


class Browser:
    """A running Chromium; see `chromium`."""

    def __init__(self, program: Path, profile: Path) -> None:
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()

        def pipes() -> None:
            """Chromium reads from 3 and writes to 4."""
            first, second = os.dup(read_commands), os.dup(write_answers)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self._process = subprocess.Popen(
            [str(program), *_OPTIONS, f"--user-data-dir={profile}"],
            preexec_fn=pipes,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": str(profile)},
        )
        os.close(read_commands)
        os.close(write_answers)
        self._ids = itertools.count(1)
        self._buffer = b""
        self._heard: set[str] = set()
        self._pages: dict[str, Page] = {}

    def close(self) -> None:
        """End it."""
        os.close(self._commands)  # which Chromium takes as a request to end
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def page(self) -> Page:
        """Open a tab."""
        target = self.call("Target.createTarget", None, url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", None, targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        speeds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.call("Network.emulateNetworkConditions", offline=True, **speeds)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._ids)
        told = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        data = json.dumps(told).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def forget(self, event: str) -> None:
        """Wait for the next event of this name, not one that was."""
        self._heard.discard(event)

    def wait_for(self, event: str) -> None:
        """Wait until any tab tells of an event."""
        while event not in self._heard:
            self._next()

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._answers, 1 << 20) if ready else b""
            assert part, f"Chromium said nothing for {SECONDS:g} s, or ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        if "method" in told:
            self._heard.add(told["method"])
            if page := self._pages.get(told.get("sessionId", "")):
                page.hear(told["method"], told["params"])
        return told


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A Chromium that runs until the end of the block; a test is skipped where there is none."""
    browser = Browser(fetched("fetch_chromium.py", "chromium"), profile)
    try:
        yield browser
    finally:
        browser.close()


def axe() -> str:
    """The script of axe-core."""
    return (fetched("fetch_axe.py", "axe") / "axe.min.js").read_text(encoding="utf-8")
