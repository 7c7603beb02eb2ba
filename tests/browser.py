"""Headless Chromium where there is one, and how to use a page in it as a person does."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (path := shutil.which(name))
    ),
    None,
)
PHONE, DESKTOP = 390, 1400  # pixels
_PATIENCE = 60  # seconds


def command(profile: Path) -> list[str]:
    """The browser and the options it always has."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    options += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    options += ["--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"]
    return [BROWSER, *options, f"--user-data-dir={profile}"]


class Page:
    """A page in a browser of its own, driven over the DevTools protocol through two pipes.

    Attributes:
        requested: addresses that the page asked for.
        complaints: errors that it reported.
    """

    def __init__(self, profile: Path, address: str, width: int, height: int = 900) -> None:
        self.requested: list[str] = []
        self.complaints: list[str] = []
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # The browser takes its pipes as the descriptors 3 and 4.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                shell,
                "bash",
                *command(profile),
                "--remote-debugging-pipe",
                "about:blank",
            ],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._last, self._unread, self._session = 0, b"", ""
        (target,) = (
            found["targetId"]
            for found in self._send("Target.getTargets")["targetInfos"]
            if found["type"] == "page"
        )
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log", "DOM"):
            self._send(f"{domain}.enable")
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._send("Page.navigate", url=address)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def js(self, expression: str) -> Any:
        """Return the value of an expression."""
        found = self._send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Return the value of an expression once it is one that counts as true."""
        end = time.monotonic() + _PATIENCE
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"{expression} stayed {value!r}: {self.text()}"
            time.sleep(0.1)
        return value

    def text(self) -> str:
        """Return what can be read on the page."""
        return self.js("document.body.innerText")

    def choose_files(self, selector: str, *files: Path) -> None:
        """Choose files in an input for files."""
        root = self._send("DOM.getDocument")["root"]["nodeId"]
        node = self._send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._send("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def click(self, selector: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        """Put the cursor into a field and type."""
        self.js(f"document.querySelector({json.dumps(selector)}).focus()")
        self._send("Input.insertText", text=text)

    def screenshot(self, file: Path, *, whole: bool = True) -> Path:
        """Save a picture of the page, of all of it or of what is in sight."""
        taken = self._send("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))
        return file

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            answering, _, _ = select.select([self._read], [], [], _PATIENCE)
            assert answering, "the browser does not answer"
            some = os.read(self._read, 1 << 20)
            assert some, "the browser has ended"
            self._unread += some
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(json.dumps(parameters["entry"]))
