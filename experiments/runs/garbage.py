"""Python looks for cycles after every few hundred new objects; among millions of parts of rows it looks in vain."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 100_000


@contextmanager
def seldom_collected() -> Iterator[None]:
    """For reading many rows: a quarter of the time went into looking. Counting references goes on as always."""
    before = gc.get_threshold()
    gc.set_threshold(SELDOM, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
