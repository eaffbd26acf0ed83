"""Who is at work in a run's folder: a small file for each worker, touched while it lives. No daemon, no server."""

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from experiments.runs.rows import file_name, write_text
from freemask.errors import UserError

WORKERS = "workers"
BEAT, STALE = (
    10.0,
    120.0,
)  # seconds: how often a worker is touched, and after how long a silent one is given up


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other that ever had its number. `host` names a machine since its boot."""

    writer: str
    host: str
    pid: int
    born: str

    @classmethod
    def me(cls, engine: str, index: int) -> "Owner":
        name = short(socket.gethostname())
        since = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        writer = file_name(f"{engine}-{index}-{since}-{name}-{os.getpid()}")
        return cls(writer, host(), os.getpid(), _born(os.getpid()) or "")

    @classmethod
    def read(cls, path: Path) -> "Owner | None":
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(found["writer"]), str(found["host"]), int(found["pid"]), str(found["born"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def text(self) -> str:
        return json.dumps(asdict(self))


class Desk:
    """This process's place in a run: known to others as long as it is entered."""

    def __init__(self, run: Path, owner: Owner, about: Mapping[str, object]) -> None:
        self.owner = owner
        self._folder, self._about = run / WORKERS, dict(about)
        self._path = self._folder / f"{owner.writer}.json"
        self._over = threading.Event()

    def __enter__(self) -> "Desk":
        try:
            write_text(self._path, json.dumps(asdict(self.owner) | self._about))
        except OSError as error:
            raise UserError(
                "cannot write the run", came=f"{self._path}: {error.strerror}", todo="paths.runs=FOLDER"
            ) from error
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def alive(self, other: Owner) -> bool:
        return alive(other, self._folder, self.now())

    def tidy(self) -> None:
        """Forgets workers that died."""
        for path in self._folder.glob("*.json"):
            owner = Owner.read(path)
            if owner is not None and not self.alive(owner):
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                os.utime(self._path)

    def now(self) -> float:
        """The time on the file system's own clock, which may not be this machine's."""
        with suppress(OSError):
            os.utime(self._path)
            return self._path.stat().st_mtime
        return datetime.now(UTC).timestamp()


def alive(owner: Owner, workers: Path, now: float) -> bool:
    """On this machine the process itself is asked; of another machine's only the signs of life are seen."""
    if owner.host == host():
        return _runs(owner.pid, owner.born)
    try:
        return now - (workers / f"{owner.writer}.json").stat().st_mtime < STALE
    except OSError:
        return False


def present(run: Path) -> Iterator[Owner]:
    """The workers that live, as somebody sees it who only looks."""
    now = datetime.now(UTC).timestamp()
    for path in sorted((run / WORKERS).glob("*.json")):
        owner = Owner.read(path)
        if owner is not None and alive(owner, run / WORKERS, now):
            yield owner


def short(name: str) -> str:
    return name.split(".")[0] or "host"


@cache
def host() -> str:
    """The machine's name, told apart by boot and by container."""
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    mark = hashlib.sha256("".join(parts).encode()).hexdigest()[:8]
    return f"{short(socket.gethostname())}:{mark}"


def _runs(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    now = _born(pid)
    return now != "" and (now is None or not born or now == born)


def _born(pid: int) -> str | None:
    """When the process began, in the kernel's ticks; "" for one that is dead but not yet buried, None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]
