"""Whom a served page answers: those who know its token, under a name of this machine, and no page of another site."""

import hashlib
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

from experiments.web.place import is_number, is_own
from freemask.errors import UserError

AUTO = "auto"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STRANGE = "This is not a page of this address. Open the address that the terminal shows."
LOCKED = (
    "The token is missing or wrong. Open the whole address, with ?token=... at its end, as the terminal shows it or as "
    "it was sent to you; after that this browser knows it."
)


def token_of(said: str | None, kept: Path | None = None) -> str | None:
    """`auto` makes one that nobody can guess, or takes the one that was `kept` when it was made; None: none is asked
    for. No word at all is refused: it is what a variable leaves that is not set."""
    if said in (None, "null"):
        return None
    if said == "":
        came, expected = "token= with nothing behind it", "a word, or auto: a random one"
        raise UserError(
            "this token lets everybody in",
            came=came,
            expected=expected,
            todo="token=null where everybody is to come in",
        )
    if said != AUTO:
        return said
    made = secrets.token_urlsafe(24)
    if kept is None:
        return made
    with suppress(OSError):  # it is there, or the folder cannot be written
        number = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w") as file:
            file.write(made)
    with suppress(OSError, UnicodeError):
        return kept.read_text(encoding="utf-8").strip() or made
    return made


@dataclass(frozen=True)
class Gate:
    """`names`: as browsers may call this machine; None: anyhow. `numbers`: also by its number, which no name of
    somebody else's can stand for. `token`: what is asked of every visitor; None: nothing. `port` tells servers of one
    machine apart, which share their cookies."""

    names: tuple[str, ...] | None
    numbers: bool = False
    token: str | None = None
    port: int = 0

    @classmethod
    def of(cls, host: str, port: int, token: str | None) -> Self:
        own = () if is_own(host) else (socket.gethostname(), socket.getfqdn())
        return cls((*LOOPBACK, *map(str.casefold, (host, *own))), numbers=bool(own), token=token, port=port)

    def refused(self, query: str, headers: Mapping[str, str]) -> str | None:
        """Why this is not answered; None: it is. Names of `headers` are small."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._called(host) or (origin is not None and _place(origin) != host):
            return STRANGE
        return None if self.token is None or self._knows(query, headers) else LOCKED

    def cookie(self, query: str) -> str | None:
        """For who came with the token in the address: what the browser shows the next time."""
        return f"{self._name}={self._seal}; Path=/; HttpOnly; SameSite=Strict" if self._told(query) else None

    def invited(self, address: str) -> str:
        """The address to open."""
        return address if self.token is None else f"{address}?token={quote(self.token, safe='')}"

    def _called(self, host: str) -> bool:
        try:
            named = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return self.names is None or named in self.names or (self.numbers and is_number(named))

    def _knows(self, query: str, headers: Mapping[str, str]) -> bool:
        pairs = (each.strip().partition("=") for each in headers.get("cookie", "").split(";"))
        shown = [value for name, _, value in pairs if name == self._name]
        return self._told(query) or any([_same(each, self._seal) for each in shown])

    def _told(self, query: str) -> bool:
        if self.token is None:
            return False
        try:
            said = parse_qs(query, keep_blank_values=True, max_num_fields=100).get("token", [])
        except ValueError:
            return False
        return any([_same(each, self.token) for each in said])

    @property
    def _name(self) -> str:
        return f"freemask-{self.port}"

    @property
    def _seal(self) -> str:
        """In place of the token, which may be a word of somebody's own, with any signs."""
        return hashlib.sha256(f"freemask {self.token}".encode()).hexdigest()


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _same(one: str, other: str) -> bool:
    """In a time that tells nothing."""
    return secrets.compare_digest(
        one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    )
