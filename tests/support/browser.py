"""A page in a headless browser, with the network off: what a script sees there, and pictures.

The browser is spoken to by its own protocol (Chrome DevTools) through two pipes: nothing but the
browser is needed, and time passes as it does for a user.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    # drawn by the CPU: no graphics card is needed
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)  # fmt: skip
ACTIONS = """(async () => {{
  const found = {{}};
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (fits) => {{
    for (let k = 0; k < 1200 && !fits(); k++) await pause(50);
    if (!fits()) throw new Error(`never: ${{fits}}`);
  }};
  {actions}
  return found;
}})()"""


@functools.cache
def browser() -> str:
    """The path of a browser that starts; empty where there is none. Of a snap that is not installed
    there is a program, too."""
    for path in filter(None, map(shutil.which, NAMES)):
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return ""


class Tab:
    """One page of a browser that runs.

    errors : what the page and the browser complained of.
    """

    def __init__(self, read: int, write: int, timeout_s: float):
        self.read, self.write = read, write
        self.ends = time.monotonic() + timeout_s
        self.rest, self.number, self.session = b"", 0, {}
        self.errors: list[str] = []
        self.events: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict:
        """The answer of the browser to a command of its protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters, **self.session}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def wait(self, event: str) -> None:
        while event not in self.events:
            self.message()

    def message(self) -> dict:
        """The next one, answer or event."""
        while b"\0" not in self.rest:
            left = self.ends - time.monotonic()
            assert left > 0 and select.select([self.read], [], [], left)[0], "no answer in time"
            more = os.read(self.read, 1 << 20)
            assert more, "the browser has ended"
            self.rest += more
        text, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(text)
        self.events.append(message.get("method", ""))
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, parameters: dict) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        if event == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(json.dumps(parameters["args"]))
        if event == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(json.dumps(parameters["entry"]))

    def see(self, actions: str) -> dict:
        """What ``actions`` fill ``found`` with: JavaScript, with ``pause(ms)`` and
        ``until(() => ...)``."""
        answer = self.call(
            "Runtime.evaluate",
            expression=ACTIONS.format(actions=actions),
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"]["value"]

    def picture(self, path: Path) -> None:
        """Write what is on the screen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def opened(
    page: Path, folder: Path, size: tuple[int, int] = (1200, 900), timeout_s: float = 240
) -> Iterator[Tab]:
    """A page in a browser of its own.

    folder : for the browser's files.    size : of the window, pixels.
    """
    to_browser, ours = os.pipe()
    answers, from_browser = os.pipe()
    # the protocol has the numbers 3 and 4
    given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
    os.close(to_browser)
    os.close(from_browser)
    command = [browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    line = f'exec "$@" 3<&{given[0]} 4>&{given[1]}'
    process = subprocess.Popen(
        ["bash", "-c", line, "bash", *command], pass_fds=given, stderr=subprocess.DEVNULL
    )
    for end in given:
        os.close(end)
    try:
        tab = Tab(answers, ours, timeout_s)
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        session = tab.call("Target.attachToTarget", targetId=target, flatten=True)
        tab.session = {"sessionId": session["sessionId"]}
        width, height = size
        for part in ("Page", "Runtime", "Log"):
            tab.call(f"{part}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        tab.call("Page.navigate", url=page.resolve().as_uri())
        tab.wait("Page.loadEventFired")
        yield tab
    finally:
        process.terminate()
        process.wait()
        os.close(ours)
        os.close(answers)
