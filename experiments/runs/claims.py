"""Who does what in a run's folder, by file locks: a lock that a dead process held is free at once.

RUN/workers/WRITER.json says who a worker is and what it has in hand; it lives as long as WRITER.lock is held.
RUN/VARIANT/claims/ITEM.lock is held by whom does an item, so that two that work on one run share it. Where a file
system has no locks, items may be done twice, with equal rows."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.runs.rows import cannot_write, file_name, write_text

CLAIMS, WORKERS = "claims", "workers"


def writer_name(engine: str, index: int) -> str:
    """Told apart from every other worker that ever was."""
    since = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return file_name(f"{engine}-{index}-{since}-{_host()}-{os.getpid()}")


class Claims:
    """The items of one variant that this process has in hand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / CLAIMS
        self._mine: dict[str, FileLock] = {}

    def take(self, item: str) -> bool:
        lock = _lock(self._folder / f"{file_name(item)}.lock")
        try:
            self._folder.mkdir(exist_ok=True)
            if _acquired(lock) is False:
                return False
        except OSError as error:
            raise cannot_write(self._folder, error) from error
        self._mine[item] = lock
        return True

    def drop(self, item: str) -> None:
        """After the item's row is written: another that waits for the lock finds the row."""
        lock = self._mine.pop(item, None)
        if lock is not None:
            _forget(lock)


@dataclass(frozen=True)
class AtWork:
    """A worker that lives, as others see it. `variant` and `item` are what it has in hand."""

    writer: str
    host: str
    pid: int
    variant: str | None = None
    item: str | None = None


class Presence:
    """This process as a worker of a run, seen by others as long as it is entered."""

    def __init__(self, run: Path, writer: str) -> None:
        self.writer = writer
        self._path = run / WORKERS / f"{writer}.json"
        self._lock = _lock(self._path.with_suffix(".lock"))

    def __enter__(self) -> "Presence":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _acquired(self._lock)
            self.doing(None, None)
        except OSError as error:
            raise cannot_write(self._path, error) from error
        return self

    def doing(self, variant: str | None, item: str | None) -> None:
        told = AtWork(self.writer, _host(), os.getpid(), variant, item)
        with suppress(OSError):  # a full disk is told where a row is written
            write_text(self._path, json.dumps(vars(told)))

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        _forget(self._lock)


def present(run: Path) -> Iterator[AtWork]:
    """The workers that live. What dead ones have left is swept."""
    for path in sorted((run / WORKERS).glob("*.json")):
        lock = _lock(path.with_suffix(".lock"))
        try:
            if Path(lock.lock_file).exists() and not _acquired(lock):  # held, or nobody can tell
                yield AtWork(**json.loads(path.read_text(encoding="utf-8")))
                continue
        except (OSError, ValueError, TypeError):
            continue  # it ended in this moment, or may not be looked at
        with suppress(OSError):
            path.unlink(missing_ok=True)
            _forget(lock)


def _lock(path: Path) -> FileLock:
    """One that ends with its process, or none: a lock that is only a file would outlive a process that was killed."""
    return FileLock(path, fallback_to_soft=False)


def _acquired(lock: FileLock) -> bool | None:
    """None where the file system has no locks."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return None
    return True


def _forget(lock: FileLock) -> None:
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _host() -> str:
    return socket.gethostname().split(".")[0] or "host"
