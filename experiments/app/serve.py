"""Serves the page to this machine: nothing is asked of any other one, and nobody else is answered unless told so."""

import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from experiments.app.visit import House
from experiments.engines.base import needed
from experiments.web.gate import Gate, token_of
from experiments.web.place import address, is_own, taken

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
    """The gate stands before all that the page is made of, its files, uploads and queues included. No other site that
    is open in the browser can press a button here."""

    app: App
    gate: Gate

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":  # the page needs no other way in
            await send({"type": "websocket.close"})
        else:
            query = scope["query_string"].decode("latin1")
            headers = {key.decode("latin1"): value.decode("latin1") for key, value in scope["headers"]}
            why = self.gate.refused(query, headers)
            if why is None:
                await self.app(scope, receive, self._told(send, self.gate.cookie(query)))
                return
            kind = (b"content-type", b"text/plain; charset=utf-8")
            await send({"type": "http.response.start", "status": 403, "headers": [kind]})
            await send({"type": "http.response.body", "body": f"{why}\n".encode()})

    @staticmethod
    def _told(send: Callable, cookie: str | None) -> Callable:
        """With what the browser may do with the answer, and what it is to show the next time."""
        more = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"same-origin")]
        more += [] if cookie is None else [(b"set-cookie", cookie.encode())]

        async def sent(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        return sent


@dataclass(frozen=True)
class Ready:
    """A server that need only be run, its place and what it serves. `open`: to who knows no token."""

    server: Any
    bound: socket.socket
    place: str
    house: House
    open: bool

    def run(self) -> None:
        """Until Ctrl-C, or until `server.should_exit`."""
        try:
            with suppress(KeyboardInterrupt):
                self.server.run(sockets=[self.bound])
        finally:
            self.house.jobs.stop_all()
            self.bound.close()


def serve(start: Sequence[str], host: str, port: int, token: str | None = None, debug: bool = False) -> None:
    with TemporaryDirectory(prefix="freemask-app-") as passing:
        os.environ["GRADIO_TEMP_DIR"] = passing
        ready = made(start, host, port, token, debug)
        print(f"freemask app: open {ready.place} in a browser; Ctrl-C ends it", flush=True)
        if not is_own(host):
            who = "whoever reaches this machine" if ready.open else "whoever has this address"
            print(f"  note: {who} can use it through the page; nothing is encrypted on the way", flush=True)
        elif ready.open:
            print("  note: whoever works on this machine can use the page in your name", flush=True)
        ready.run()


def made(start: Sequence[str], host: str, port: int, token: str | None = None, debug: bool = False) -> Ready:
    """`start`: the words that every edit begins with. `token`: `auto` makes one; none: nobody is asked for one."""
    os.environ.update(QUIET)
    gradio = needed("gradio", "app", "freemask app")
    fastapi, uvicorn = needed("fastapi", "app", "freemask app"), needed("uvicorn", "app", "freemask app")
    house = House(tuple(start))
    house.tasks  # noqa: B018 -- what is wrong with the words shows now
    bound = taken(host, port)
    from experiments.app import page  # imports Gradio

    blocks = page.page(house, debug)
    # Gradio reads any file that a visitor names, uploaded or not, until a page was launched; a mounted one never is.
    blocks.has_launched = True
    inner = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        max_file_size=LARGEST,
        **page.look(),
    )
    gate = Gate.of(host, bound.getsockname()[1], token_of(token))
    level = "warning" if debug else "critical"  # a page that is open at the end is no error
    config = uvicorn.Config(Guard(inner, gate), log_level=level, timeout_graceful_shutdown=GRACE)
    place = gate.invited(address(host, bound))
    return Ready(uvicorn.Server(config), bound, place, house, open=gate.token is None)
