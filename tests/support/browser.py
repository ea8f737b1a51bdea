"""Chromium without a window, driven over a pipe by the DevTools protocol.

The browser is $GRADSURGERY_CHROMIUM or Debian's /usr/bin/chromium.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

TIMEOUT = 60.0  # seconds, which bound a hang


def chromium():
    """The path of the browser; None where there is none."""
    return shutil.which(os.environ.get("GRADSURGERY_CHROMIUM", "/usr/bin/chromium"))


class Browser:
    """One page in a browser process. A context manager that ends the process.

    Attributes:
        errors: what the console had of errors, and exceptions that no one caught.
        requests: the addresses that the page asked for.
    """

    def __init__(self, folder):
        self.errors, self.requests = [], []
        self._number, self._rest, self._session = 0, b"", None
        from_us, self._out = os.pipe()
        self._in, to_us = os.pipe()

        def place():  # Chromium reads commands at 3 and writes answers at 4
            first, second = os.dup(from_us), os.dup(to_us)
            os.dup2(first, 3)
            os.dup2(second, 4)

        options = (
            *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
            *("--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars"),
            f"--user-data-dir={folder}",
        )
        self._process = subprocess.Popen(
            [chromium(), *options, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            close_fds=False,
        )
        os.close(from_us)
        os.close(to_us)
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path, *, width=1280, height=900, dark=False):
        """Load a file, at a width, light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=Path(path).absolute().as_uri())
        while not self._loaded:
            self._next()

    def evaluate(self, script):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path, whole=True):
        """A PNG of the page, of all of it where `whole`."""
        made = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(made["data"]))

    def _next(self):
        end = time.monotonic() + TIMEOUT
        while b"\0" not in self._rest:
            assert time.monotonic() < end, "the browser does not answer"
            if select.select([self._in], [], [], 1.0)[0]:
                piece = os.read(self._in, 1 << 16)
                assert piece, "the browser has ended"
                self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, said):
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(said["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning"):
            self.errors.append(said["args"])
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.errors.append(said["entry"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(OSError):
            os.close(self._out)
            os.close(self._in)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
