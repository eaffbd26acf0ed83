"""Serves the page to this machine: nothing is asked of any other one, and nobody else is answered unless told so."""

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from experiments.app.visit import House
from experiments.engines.base import needed
from freemask.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LARGEST = "1gb"  # of a clip that is dropped
GRACE = 1  # seconds for open connections when it ends
# What a page may load: itself, and what it makes itself.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self';"
    " form-action 'self'; frame-ancestors 'none'"
)
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable, Callable], Awaitable[None]]


@dataclass(frozen=True)
class Guard:
    """Answers pages of its own address alone: no other site that is open in the browser can press a button here."""

    app: App
    hosts: tuple[str, ...]  # as browsers may call this machine
    numbers: bool = False  # also by its number, which no name of somebody else's can stand for

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # the page needs no other way in
            await send({"type": "websocket.close"})
        elif self._strange({key.decode("latin1"): value.decode("latin1") for key, value in scope["headers"]}):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"not from this page"})
        else:
            await self.app(scope, receive, self._with_policy(send))

    def _strange(self, headers: dict[str, str]) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        named = urlsplit(f"//{host}").hostname or ""
        known = named in self.hosts or (self.numbers and _is_number(named))
        return not known or (origin is not None and urlsplit(origin).netloc != host)

    @staticmethod
    def _with_policy(send: Callable) -> Callable:
        async def sent(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"same-origin"),
                ]
            await send(message)

        return sent


def _is_number(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


@dataclass(frozen=True)
class Ready:
    """A server that need only be run, its place and what it serves."""

    server: Any
    bound: socket.socket
    place: str
    house: House

    def run(self) -> None:
        """Until Ctrl-C, or until `server.should_exit`."""
        try:
            with suppress(KeyboardInterrupt):
                self.server.run(sockets=[self.bound])
        finally:
            self.house.jobs.stop_all()
            self.bound.close()


def serve(start: Sequence[str], host: str, port: int, debug: bool = False) -> None:
    with TemporaryDirectory(prefix="freemask-app-") as passing:
        os.environ["GRADIO_TEMP_DIR"] = passing
        ready = made(start, host, port, debug)
        print(f"freemask app: open {ready.place} in a browser; Ctrl-C ends it", flush=True)
        if host not in LOOPBACK:
            print("  note: whoever reaches this address can use this machine through the page", flush=True)
        ready.run()


def made(start: Sequence[str], host: str, port: int, debug: bool = False) -> Ready:
    """`start`: the words that every edit begins with."""
    os.environ.update(QUIET)
    gradio = needed("gradio", "app", "freemask app")
    fastapi, uvicorn = needed("fastapi", "app", "freemask app"), needed("uvicorn", "app", "freemask app")
    house = House(tuple(start))
    house.tasks  # noqa: B018 -- what is wrong with the words shows now
    bound = _bound(host, port)
    from experiments.app import page  # imports Gradio

    inner = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page.page(house, debug),
        path="/",
        footer_links=[],
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        max_file_size=LARGEST,
        **page.look(),
    )
    own = () if host in LOOPBACK else (host, socket.gethostname(), socket.getfqdn())
    guard = Guard(inner, (*LOOPBACK, *own), numbers=bool(own))
    level = "warning" if debug else "critical"  # a page that is open at the end is no error
    config = uvicorn.Config(guard, log_level=level, timeout_graceful_shutdown=GRACE)
    name = f"[{host}]" if ":" in host else host
    return Ready(uvicorn.Server(config), bound, f"http://{name}:{bound.getsockname()[1]}/", house)


def _bound(host: str, port: int) -> socket.socket:
    """Taken before anything is loaded, so that what is wrong with it shows at once."""
    if not 0 <= port <= 65535:
        raise UserError("this is no port", came=f"port={port}", expected="0 (any that is free) to 65535")
    bound = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        if bound is not None:
            bound.close()
        came, todo = f"host={host} port={port}: {error.strerror or error}", "port=0 takes any that is free"
        raise UserError("the page cannot be served there", came=came, todo=todo) from error
    return bound
