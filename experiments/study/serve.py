"""A small server for a study's page: it hands out the files that the study lists, takes answers, and does nothing else.

What is asked for is looked up in a list made at the start, so no address reaches another file. Answers are held against
the study before they are kept; each is a file of its own, written whole, never over another."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from threading import BoundedSemaphore
from typing import Any, ClassVar
from urllib.parse import unquote

from experiments.study.answers import MOST
from experiments.study.desk import Desk
from experiments.study.folder import INDEX, TOKEN, Study
from experiments.web.gate import Gate, token_of
from experiments.web.place import address, is_own, taken

TYPES = {".html": "text/html; charset=utf-8", ".mp4": "video/mp4", ".png": "image/png"}
POST = "/answers"
LINES = 500  # that are open at once; a browser has up to six
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "media-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'",
}


class Handler(BaseHTTPRequestHandler):
    """`files`: by the address, what is handed out."""

    desk: ClassVar[Desk]
    gate: ClassVar[Gate]
    files: ClassVar[Mapping[str, Path]]
    timeout = 30
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "study", ""

    def do_GET(self) -> None:
        if why := self._stopped():
            self._refuse(HTTPStatus.FORBIDDEN, why)
            return
        path = self.files.get(unquote(self.path.partition("?")[0]))
        try:
            content = None if path is None else _content(path)
        except OSError:
            content = None
        if path is None or content is None:
            self._say(HTTPStatus.NOT_FOUND, "there is no such page")
            return
        whole, piece = len(content), _piece(self.headers.get("Range"), len(content))
        if piece is None:
            self._say(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no such part")
            return
        start, end = piece
        partly = (end - start) < whole or "Range" in self.headers
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partly else HTTPStatus.OK)
        self.send_header("Accept-Ranges", "bytes")
        if partly:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{whole}")
        self._finish(TYPES[path.suffix], content[start:end])

    do_HEAD = do_GET

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if why := self._stopped():
            self._refuse(HTTPStatus.FORBIDDEN, why)
        elif self.path.partition("?")[0] != POST:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is taken there")
        elif not size.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "how long it is must be said")
        elif int(size) > MOST:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "these answers are too large")
        else:
            try:
                self._say(*self.desk.take(self.rfile.read(int(size))))
            except OSError as error:
                self._say(HTTPStatus.INTERNAL_SERVER_ERROR, f"they could not be kept: {error.strerror}")

    def _stopped(self) -> str | None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self.gate.refused(self._query, headers)

    @property
    def _query(self) -> str:
        return self.path.partition("?")[2]

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """What was sent is not read, so nothing more can be heard on this line."""
        self.close_connection = True
        self._say(status, text)

    def _say(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        self._finish("text/plain; charset=utf-8", text.encode())

    def _finish(self, kind: str, content: bytes) -> None:
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if cookie := self.gate.cookie(self._query):
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody's visits are written down."""


class Server(ThreadingHTTPServer):
    """Of a place that was taken before. `invitation`: the address for raters."""

    daemon_threads = True

    def __init__(self, bound: socket, host: str, handler: type[Handler]) -> None:
        super().__init__(bound.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.desk, self.gate = bound, handler.desk, handler.gate
        self.lines = BoundedSemaphore(LINES)
        self.invitation = self.gate.invited(address(host, bound))
        self.server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.lines.acquire(timeout=1):
            super().process_request(request, client_address)
        else:  # browsers try again
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.lines.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A line that breaks off is the visitor's matter."""


def server_of(
    study: Study, host: str, port: int, token: str | None = None, desk: Desk | None = None
) -> Server:
    """Listening, and not serving yet."""
    bound = taken(host, port)
    gate = Gate.of(host, bound.getsockname()[1], token_of(token, study.folder / TOKEN))
    if gate.token is not None or not is_own(host):
        # Raters come by any name that leads here, as that of a server in front; their token is what counts.
        gate = replace(gate, names=None)
    files = {f"/{name}": study.page / name for name in study.files}
    made = {"desk": desk or Desk(study), "gate": gate, "files": {**files, "/": study.page / INDEX}}
    return Server(bound, host, type("Mine", (Handler,), made))


def _content(path: Path) -> bytes:
    """Of a plain file of the page's own folder; a link is none."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(number, "rb") as file:
        if path.parent.is_symlink():
            raise OSError("a link")
        return file.read()


def _piece(asked: str | None, whole: int) -> tuple[int, int] | None:
    """The part that a player asks for; browsers seek by it. None where there is none; of odd wishes, all."""
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked or "")
    if found is None or found[0] == "bytes=-":
        return 0, whole
    if not found[1]:
        return (max(0, whole - int(found[2])), whole) if int(found[2]) else None
    start = int(found[1])
    end = min(whole, int(found[2]) + 1) if found[2] else whole
    return (start, end) if start < end else None
