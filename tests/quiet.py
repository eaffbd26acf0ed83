"""A random network is no denoiser; with a quiet last layer it changes slowly along the path, as a trained one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(backbone: Any, share: float = 0.002) -> Iterator[Any]:
    """The backbone with a last layer of that share; afterwards it is as it was, for all tests share it."""
    network = backbone.network
    weight = getattr(network, "conv_out", getattr(network, "proj_out", None)).weight
    before = weight.clone()
    weight.mul_(share)
    try:
        yield backbone
    finally:
        weight.copy_(before)
