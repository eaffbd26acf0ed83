"""Queries, keys and values of the source clip, kept for the edit on the device, in host memory or on disk."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from freemask.attention.bias import KeyMask
from freemask.errors import UserError
from freemask.types import QKV, Time, Where

GB = 10**9
PLACES = ("device", "host", "disk")
FORMS = (None, "int8")  # as they are, or each row of numbers as whole ones and the size of the largest
LEVELS = 127
UNIT = "unit"
Slot = dict[str, Tensor]  # "site q" -> tensor, everything of one network time


class Features:
    """Put during the inversion, time by time; taken while sampling, from the noisy end, the next time being fetched
    meanwhile. Text keys are as small as text; queries and keys of image layers are what costs."""

    def __init__(
        self,
        place: str = "host",
        budget_gb: float | int = 8,
        *,
        device: torch.device,
        folder: str | Path | None = None,
        may_fail: bool = False,
        form: str | None = None,
    ) -> None:
        """`form`: in which they are kept. `may_fail`: what does not fit or cannot be kept is no error; nothing is kept
        then, and `failed` says so."""
        if place not in PLACES:
            raise UserError("there is no such place for features", came=place, expected=", ".join(PLACES))
        if form not in FORMS:
            raise UserError("features cannot be kept so", came=form, expected="int8, or null: as they are")
        self.form = form
        self.place, self.budget, self.device = place, int(budget_gb * GB), device
        self.may_fail, self.failed = may_fail, False
        self.stays = False  # for the next edit of the clip
        self.bytes = 0
        self._slots: dict[Time, Slot] = {}
        self._scales: dict[str, float] = {}
        self._shared: set[str] = set()
        self._here: tuple[Time, Slot] | None = None
        self._coming: tuple[Time, Future[Slot]] | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._folder = (
            tempfile.TemporaryDirectory(prefix="freemask-", dir=folder) if place == "disk" else None
        )
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" and place != "device" else None

    def put(self, where: Where, qkv: QKV, *, values: bool) -> None:
        """Of a stack of one stream: q and k, and v where asked; and which keys may be looked at."""
        if self.failed:
            return
        try:
            self._put(where, qkv, values)
        except UserError:
            if not self.may_fail:
                raise
            self.close()
            self.failed = True

    def _put(self, where: Where, qkv: QKV, values: bool) -> None:
        if not isinstance(qkv.bias, KeyMask | None):
            raise UserError(
                "the features of layers with a bias cannot be kept",
                came=where.site.name,
                expected="attention without a bias, or with a mask of keys",
                todo="use method.features=recompute",
            )
        kept = {"q": qkv.q, "k": qkv.k} | ({"v": qkv.v} if values else {})
        for name, value in kept.items():
            if value.stride(1) == 0:  # one set of keys for all frames: kept once
                self._shared.add(f"{where.site.name} {name}")
                kept[name] = value[:, :1]
        if self.form is not None:
            kept = {part: each for name, value in kept.items() for part, each in packed(name, value)}
        if qkv.bias is not None:
            kept["keys"] = qkv.bias.allowed
        size = sum(value.numel() * value.element_size() for value in kept.values())
        self.bytes += size
        if self.bytes > self.budget:
            raise UserError(
                f"the source's features do not fit ({self.place})",
                came=f"{self.bytes / GB:.2f} GB at {where.site.name}, t = {where.t}, and more to come",
                expected=f"at most {self.budget / GB:g} GB",
                todo="method.features=recompute keeps none; "
                "or method.cache_as=int8, method.budget_gb=..., method.cache_on=disk",
            )
        if where.t not in self._slots:
            self._flush()
        slot = self._slots.setdefault(where.t, {})
        self._scales[where.site.name] = qkv.scale
        for name, value in kept.items():
            slot[f"{where.site.name} {name}"] = self._away(value.detach())

    def get(self, where: Where, following: Time | None = None) -> QKV:
        """What was put at this layer and time. `following` is the time that will be asked for after this one."""
        if self._here is None or self._here[0] != where.t:
            self._flush()
            self._here = (where.t, self._arrived(where.t))
            if following is not None:
                self._send_for(following)
        slot, name = self._here[1], where.site.name
        q = unpacked(slot, f"{name} q")
        k = self._whole(f"{name} k", unpacked(slot, f"{name} k"), q)
        v = self._whole(f"{name} v", unpacked(slot, f"{name} v"), q) if f"{name} v" in slot else k
        allowed = slot.get(f"{name} keys")
        bias = None if allowed is None else KeyMask(allowed)
        return QKV(q=q, k=k, v=v, scale=self._scales[name], bias=bias)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
        self._slots, self._here, self._coming, self._worker = {}, None, None, None
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> "Features":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _away(self, value: Tensor) -> Tensor:
        if self.place == "device":
            return value.clone()
        away = torch.empty(value.shape, dtype=value.dtype, pin_memory=self.device.type == "cuda")
        away.copy_(value)
        return away

    def _whole(self, name: str, value: Tensor, like: Tensor) -> Tensor:
        return value.expand(-1, like.shape[1], -1, -1, -1) if name in self._shared else value

    def _flush(self) -> None:
        """A time is over: what was put goes to disk, where that is its place."""
        if self._folder is not None:
            for t, slot in self._slots.items():
                save_file(slot, self._file(t))
            self._slots.clear()

    def _arrived(self, t: Time) -> Slot:
        coming = self._coming
        slot = coming[1].result() if coming is not None and coming[0] == t else self._fetch(t)
        if self._stream is not None:
            main = torch.cuda.current_stream(self.device)
            main.wait_stream(self._stream)
            for value in slot.values():
                value.record_stream(main)
        self._coming = None
        return slot

    def _send_for(self, t: Time) -> None:
        if self.place == "device" or (self.place == "host" and self._stream is None):
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1)
        self._coming = (t, self._worker.submit(self._fetch, t))

    def _fetch(self, t: Time) -> Slot:
        if self._folder is not None:
            path = self._file(t)
            slot = load_file(path) if path.is_file() else None
        else:
            slot = self._slots.get(t)
        if slot is None:
            raise KeyError(f"no features were kept at t = {t}")
        if self._stream is None:
            return dict(slot)
        with torch.cuda.stream(self._stream):
            return {name: value.to(self.device, non_blocking=True) for name, value in slot.items()}

    def _file(self, t: Time) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{t}.safetensors"


def packed(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A row of queries or keys as whole numbers, and what one of them stands for. An error of at most half of that: for
    numbers spread as in a bell, half a percent of the row's length."""
    unit = value.abs().amax(-1, keepdim=True).float() / LEVELS
    yield name, (value / unit.clamp(min=torch.finfo(torch.float32).tiny)).round().to(torch.int8)
    yield f"{name} {UNIT}", unit.to(value.dtype)


def unpacked(slot: Slot, name: str) -> Tensor:
    unit = slot.get(f"{name} {UNIT}")
    return slot[name] if unit is None else slot[name].to(unit.dtype) * unit
