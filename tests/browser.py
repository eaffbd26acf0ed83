"""A headless Chromium for tests: starts it, opens a page from disk, runs expressions in it, takes pictures.

It speaks the DevTools protocol over the browser's own pipe, so that nothing has to be installed besides Chromium.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-extensions --disable-background-networking"


def found() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    def __init__(self, process: subprocess.Popen, send: int, hear: int) -> None:
        self._process, self._send, self._hear = process, send, hear
        self._rest, self._count = b"", 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        self._count += 1
        words = {"id": self._count, "method": method, "params": given}
        if self._session:
            words["sessionId"] = self._session
        os.write(self._send, json.dumps(words).encode() + b"\0")
        while True:
            heard = self._read()
            if heard.get("id") == self._count:
                assert "error" not in heard, heard["error"]
                return heard["result"]
            self.events.append(heard)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._hear, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, path: Path | str, hash: str = "", wide: int = 1400, high: int = 900) -> None:
        """A file, or an address; and waits until the page says that it is shown."""
        address = path if isinstance(path, str) else path.resolve().as_uri()
        self.visit(address + (f"#{hash}" if hash else ""), wide, high)
        self.wait("document.documentElement?.dataset.ready !== undefined")

    def visit(self, address: str, wide: int = 1400, high: int = 900) -> None:
        self.size(wide, high)
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=address)

    def size(self, wide: int, high: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False
        )

    def wait(self, expression: str, seconds: float = 30) -> None:
        until = monotonic() + seconds
        while not self.run(f"Boolean({expression})"):
            assert monotonic() < until, f"still not so: {expression}; {self.complaints()}"
            sleep(0.02)

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27}
        code = codes.get(key, ord(key.upper()[0]))
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def type(self, selector: str, text: str) -> None:
        """Into a field or onto a slider, as if it were typed or dragged, and let go."""
        setter = (
            "Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set.call(field, text)"
        )
        events = "for (const each of ['input', 'change', 'pointerup']) "
        events += "field.dispatchEvent(new Event(each, {bubbles: true}))"
        given = f"document.querySelector({json.dumps(selector)}), {json.dumps(text)}"
        self.run(f"((field, text) => {{ {setter}; {events} }})({given})")

    def drag(self, selector: str, *way: tuple[float, float]) -> None:
        """With the mouse, along places that are shares of a part's width and height; one place is a click."""
        where = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{where}.scrollIntoView({{block: 'center'}})")
        left, top, wide, high = self.run(
            f"(box => [box.x, box.y, box.width, box.height])({where}.getBoundingClientRect())"
        )
        places = [(left + x * wide, top + y * high) for x, y in way]
        for kind, (x, y) in [("mouseMoved", places[0]), ("mousePressed", places[0])]:
            self.mouse(kind, x, y)
        for (x, y), (to_x, to_y) in pairwise(places):
            for share in (0.2, 0.4, 0.6, 0.8, 1):
                self.mouse("mouseMoved", x + share * (to_x - x), y + share * (to_y - y))
                sleep(0.02)
        self.mouse("mouseReleased", *places[-1])

    def mouse(self, kind: str, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def choose(self, selector: str, path: Path) -> None:
        """A file, for a field that takes one."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve())])

    def requested(self) -> list[str]:
        """Every address that was asked for since the page was opened."""
        self.run("1")
        asked = [each for each in self.events if each.get("method") == "Network.requestWillBeSent"]
        return [each["params"]["request"]["url"] for each in asked]

    def complaints(self) -> list[str]:
        self.run("1")
        said = [each["params"] for each in self.events if each.get("method") == "Runtime.exceptionThrown"]
        return [json.dumps(each) for each in said]

    def picture(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(shot))


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[Browser]:
    program = found()
    assert program is not None
    theirs, send = _pipe()
    hear, theirs_too = _pipe()
    # The protocol's fixed places are 3 and 4; a shell puts our ends there.
    script = f'exec "$@" 3</dev/fd/{theirs} 4>/dev/fd/{theirs_too}'
    words = [program, *FLAGS.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}", *flags]
    full, quiet = ["/bin/sh", "-c", script, "sh", *words], subprocess.DEVNULL
    passed = (theirs, theirs_too)
    process = subprocess.Popen(full, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=passed)
    os.close(theirs)
    os.close(theirs_too)
    try:
        yield Browser(process, send, hear)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(send)
        os.close(hear)


def _pipe() -> tuple[int, int]:
    """Both ends above 9, out of the protocol's way."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
