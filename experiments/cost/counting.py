"""What an edit asks of a machine, by stages: floating-point operations, calls of operators, copies, kernel launches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from freemask.memory import Meter

Shape = Sequence[int]


def _of_product(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(x) * weight[0]


def _of_convolution(x: Shape, weight: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return 2 * prod(out_shape) * prod(weight[1:])


# Operators that the library's counter does not know: those of layers in quicker forms (`freemask.backbones.quick`).
_ONEDNN: dict[Any, Any] = {torch.ops.aten.mkldnn_convolution: _of_convolution}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _ONEDNN[torch.ops.mkldnn._linear_pointwise] = _of_product

COPIES = ("copy_", "_to_copy", "clone", "cat", "stack")
LAUNCHES = ("LaunchKernel", "GraphLaunch")  # in the names of calls that start work on a GPU
MOVES = ("Memcpy", "Memset")


class Staged(Meter):
    """Counts while it is entered; methods say which stage they are in (`freemask.memory.stage`)."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.device = device
        self.counts: dict[str, dict[str, int]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        inner = bool(self._open)  # a stage within another one counts for that
        with super().stage(name):
            if inner:
                yield
                return
            with self.counting() as found:
                yield
            own = self.counts.setdefault(name, {})
            for key, value in found.items():
                own[key] = own.get(key, 0) + value

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """What it hands out is full at the end."""
        raise NotImplementedError
        yield {}


class Counted(Staged):
    """Without compiled parts, which do not say what they do. Views of what is there are no calls."""

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        found: dict[str, int] = {}
        operators, flops = Operators(), FlopCounterMode(display=False, custom_mapping=_ONEDNN)
        with torch.compiler.set_stance("force_eager"), operators, flops:
            yield found
        found |= {"flops": flops.get_total_flops(), "calls": operators.calls, "copies": operators.copies}


class Launched(Staged):
    """On a GPU, as edits run there."""

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        found: dict[str, int] = {}
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            yield found
            torch.cuda.synchronize(self.device)
        found["launches"] = launches_in(seen.key_averages())


class Operators(TorchDispatchMode):
    """Sees every operator that is called, below gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.calls += 1
            self.copies += func._schema.name.removeprefix("aten::") in COPIES
        return func(*args, **(kwargs or {}))


def launches_in(events: Any) -> int:
    """Calls that launch; where the profiler does not show them, the kernels that ran."""
    calls = sum(each.count for each in events if any(name in each.key for name in LAUNCHES))
    on_card = (each for each in events if each.device_type.name == "CUDA")
    return calls or sum(each.count for each in on_card if not each.key.startswith(MOVES))
