"""A headless Chromium, driven over a pipe (the devtools protocol), for tests of pages with scripts."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
PIPE = 'exec "$0" "$@" 3<&{} 4>&{}'


class Browser:
    """One page at a time; what it asked of the network, and what went wrong, is kept."""

    def __init__(self, profile: Path) -> None:
        (low_read, self.to), (self.of, low_write) = os.pipe(), os.pipe()
        # out of the way of 3 and 4, where the browser looks for its pipe
        to_read, from_write = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (low_read, low_write))
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--no-first-run",
        ]
        flags += ["--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking"]
        command = ["bash", "-c", PIPE.format(to_read, from_write), CHROMIUM, *flags]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_read, from_write, low_read, low_write):
            os.close(end)
        self.number, self.rest, self.events = 0, b"", []  # type: int, bytes, list[dict[str, Any]]
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.to)
        self.process.kill()
        self.process.wait()
        os.close(self.of)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            some = os.read(self.of, 1 << 20)
            if not some:
                raise EOFError("the browser has gone")
            self.rest += some
        one, _, self.rest = self.rest.partition(b"\0")
        return json.loads(one)  # type: ignore[no-any-return]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self.to, left) :]
        while True:
            answer = self._message()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]  # type: ignore[no-any-return]
            self.events.append(answer)

    def run(self, code: str) -> Any:
        """What ``code`` comes to; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def open(self, page: Path | str, width: int = 1000, height: int = 1400, dark: bool = False) -> None:
        """Show a file, or an address, and wait until its map is drawn."""
        self.events = []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self.wait_for(
            "document.readyState === 'complete' && (window.ayatori || !document.getElementById('look-data'))"
        )

    def wait_for(self, condition: str, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never came: {condition}; {self.complaints()}"
            time.sleep(0.02)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press at the first of the points, let go at the last."""
        self.mouse("Moved", *points[0])
        self.mouse("Pressed", *points[0], button="left", buttons=1, clickCount=1)
        for point in points[1:]:
            self.mouse("Moved", *point, button="left", buttons=1)
        self.mouse("Released", *points[-1], button="left", clickCount=1)

    def asked(self) -> list[str]:
        """Addresses that were asked for, but for the page and what it holds itself."""
        urls = [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "blob:", "file:"))]

    def complaints(self) -> list[Any]:
        """Errors and warnings of the console."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def picture(self, path: Path, full: bool = True) -> None:
        shot = self.call(
            "Page.captureScreenshot", captureBeyondViewport=full, **(self._clip() if full else {})
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
