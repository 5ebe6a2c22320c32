"""A headless Chromium with one page, driven through its DevTools protocol: no driver program, no further package."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=1400,1600",  # Prefect's pages draw what is in view only
    "--remote-debugging-port=0",
)
START_S = 60.0


def executable() -> str | None:
    """Where Chromium is, None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page; a command waits for its answer."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command; events that arrive meanwhile are looked through for errors."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=90))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])
            self._note(message)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.errors.clear()
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """What a person can read, also inside shadow trees."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def await_text(self, *wanted: str, seconds: float = 60) -> str:
        """The page's text once it holds every wanted piece."""
        until = time.monotonic() + seconds
        while True:
            text = self.text()
            missing = [piece for piece in wanted if piece not in text]
            if not missing:
                return text
            assert time.monotonic() < until, f"the page does not show {missing}, but:\n{text}\n{self.errors}"
            time.sleep(0.5)

    def click(self, text: str) -> None:
        """Click the smallest element with exactly this text."""
        done = self.evaluate(
            f"""(() => {{ const found = [...document.querySelectorAll('a,button,label,span,div,li,p')]
                .filter(e => e.innerText && e.innerText.trim() === {json.dumps(text)});
                if (found.length) found[found.length - 1].click(); return found.length; }})()"""
        )
        assert done, f"nothing to click reads {text!r}"

    def picture(self) -> bytes:
        """A screenshot, PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"].get("exception", {}).get("description")))
        entry = message.get("params", {}).get("entry", {})
        if entry.get("level") == "error":
            self.errors.append(f"{entry.get('text')} {entry.get('url', '')}")


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start Chromium with a new profile and open its page; it is gone when the context ends."""
    program = executable()
    assert program is not None
    command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_page_socket(process, profile), max_size=None, open_timeout=30) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _page_socket(process: subprocess.Popen[bytes], profile: Path) -> str:
    port = profile / "DevToolsActivePort"
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        if port.exists() and (lines := port.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=30) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError(f"Chromium did not start (exit code {process.poll()})")
