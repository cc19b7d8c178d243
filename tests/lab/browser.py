"""A headless Chromium, driven by its own protocol over a pipe: no driver and no library is needed.

https://chromedevtools.github.io/devtools-protocol/ describes the methods. Each message is JSON that
ends with a zero byte; the browser reads them from descriptor 3 and writes them to 4.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from types import TracebackType
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 60.0
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # the tests run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_READ, _WRITE = 3, 4  # as the browser has them


class BrowserError(Exception):
    """The browser refused a method, threw an exception in the page, or did not answer."""


def program() -> str | None:
    """Return the browser that is installed; None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, width: int = 1440, height: int = 900, *, dark: bool = False) -> None:
        self._home = tempfile.mkdtemp(prefix="rt-browser-")
        self._events: deque[dict[str, Any]] = deque()
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self._start()
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.resize(width, height)
            self.prefer("dark" if dark else "light")
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        found = program()
        assert found is not None, "no browser: packaging/bootstrap.sh tests installs one"
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        # The shell puts the two descriptors where the browser looks for them.
        script = f'exec "$@" {_READ}<&{to_browser} {_WRITE}>&{from_browser}'
        self._process = subprocess.Popen(
            (
                *("bash", "-c", script, "bash", found),
                *_OPTIONS,
                f"--user-data-dir={self._home}",
                "about:blank",
            ),
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self._home},
        )
        os.close(to_browser)
        os.close(from_browser)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(BrowserError, OSError):
            self._session = None
            self.call("Browser.close", timeout_s=5.0)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._home, ignore_errors=True)

    # The protocol -------------------------------------------------------------------------------

    def call(self, method: str, timeout_s: float = TIMEOUT_S, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self._read(deadline, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            if "method" in answer:
                self._events.append(answer)

    def _read(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise BrowserError(f"{what}: no answer")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise BrowserError(f"{what}: the browser has ended")
            self._buffer += data
        one, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(one)
        return found

    def events(self, method: str) -> list[dict[str, Any]]:
        """Return what was heard of a kind of event so far, with the parameters of each."""
        self.js("0")  # whatever was sent before has then been read
        return [event["params"] for event in self._events if event["method"] == method]

    # A person -----------------------------------------------------------------------------------

    def resize(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Have the person prefer `dark` or `light`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        self._events.clear()
        self.call("Page.navigate", url=url)

    def js(self, expression: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Return what an expression of the page's language has as its value. Awaits promises."""
        answer = self.call(
            "Runtime.evaluate",
            timeout_s,
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, timeout_s: float = TIMEOUT_S) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(BrowserError):
                if value := self.js(expression):
                    return value
            if time.monotonic() > deadline:
                raise BrowserError(f"not within {timeout_s:.0f} s: {expression}")
            time.sleep(0.02)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def move(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y)

    def click(self, x: float, y: float) -> None:
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def wheel(self, x: float, y: float, delta: float) -> None:
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=delta)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key by its name, as in Enter or Escape."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path: str) -> None:
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
