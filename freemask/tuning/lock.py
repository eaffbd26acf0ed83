"""One process at a time makes a thing that several want; the others wait and find it made."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freemask.types import Progress

try:
    import fcntl
except ImportError:  # Windows: each makes it for itself
    fcntl = None

WAIT = 0.5  # seconds


@contextmanager
def alone(path: Path | None, progress: Progress, what: str = "tuning") -> Iterator[None]:
    """`path` is that of the thing, `what` its name for readers. The system opens the lock when a process dies; where
    a disk knows no locks, all work at once, and the last one's result stays."""
    if path is None or fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_suffix(".lock").open("w", encoding="utf-8")
    except OSError:
        yield
        return
    with file:
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    progress(f"waiting for the same {what} in another process", 0, 1)
                waited = True
                time.sleep(WAIT)
            except OSError:
                break
        yield
