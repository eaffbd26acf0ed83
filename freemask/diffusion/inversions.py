"""Inversions that are made once: latents and word heat, kept on disk for every method, prompt and run."""

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from freemask.attention.math import attend
from freemask.attention.record import Keep, Recording, heat_of_words, recorder
from freemask.diffusion.guidance import guided
from freemask.diffusion.loops import invert
from freemask.errors import UserError
from freemask.types import QKV, AttentionTap, Backbone, Grid, Progress, Taps, Text, Where, silent

GB = 10**9
Spy = Callable[[Where, QKV], None]
Columns = tuple[int, ...]


@dataclass(frozen=True)
class Inversion:
    """`latents` at the levels [CLEAN, *times]; `passes` counts how often the network ran for it."""

    latents: Sequence[Float[Tensor, "f c h w"]]
    times: Sequence[int]
    passes: int = 0

    def input_at(self, t: int) -> Float[Tensor, "f c h w"]:
        """What the network saw at time t: the latent one level below."""
        return self.latents[list(self.times).index(t)]


@dataclass(frozen=True)
class Wish:
    """What an inversion is to record: keeps into a recording, and a spy that sees all attention."""

    keeps: Sequence[Keep] = ()
    into: Recording = field(default_factory=Recording)
    spy: Spy | None = None

    def tap(self, heats: Sequence[Columns], fresh: Recording) -> AttentionTap | None:
        """Records heat of these columns afresh and every keep that is not heat; None where nothing is to do."""
        tap: AttentionTap | None = None
        if self.spy is not None:
            tap = _spying(self.spy)
        others = [keep for keep in self.keeps if keep.heat is None]
        tap = recorder(others, self.into, then=tap) if others else tap
        wanted = [heat_of_words(_name(columns), columns, stream="source") for columns in heats]
        return recorder(wanted, fresh, then=tap) if wanted else tap


class Inversions:
    """A folder of inversions, each under a hash of clip, prompt, backbone, times and dtype. `folder` None keeps
    nothing. Beyond `budget_gb` the ones used longest ago go. Trouble with the disk is a warning, never an error."""

    def __init__(self, folder: str | Path | None = None, budget_gb: float | int = 4) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.budget = int(budget_gb * GB)
        if budget_gb <= 0:
            raise UserError(
                "the budget of stored inversions is too small", came=budget_gb, expected="above 0"
            )

    def invert(
        self,
        backbone: Backbone,
        latents: Float[Tensor, "f c h w"],
        text: Text,
        steps: int,
        *,
        wish: Wish | None = None,
        progress: Progress = silent,
    ) -> Inversion:
        """The inversion under a prompt at guidance 1, and what is wished of it; from the store where it is known.

        Heat of words is stored whole (every text layer and time), so that any choice of layers finds it again.
        For other keeps, and for a spy, the network runs again on the known latents.
        """
        wish = Wish() if wish is None else wish
        times = backbone.noise_path.times(steps)
        base = _key(backbone, latents, text, times)
        stored = self.load(base)
        known = stored is not None and len(stored.get("latents", ())) == len(times) + 1
        maps: dict[Columns, dict[str, Tensor]] = {}
        for columns in {keep.heat for keep in wish.keeps if keep.heat is not None} if known else ():
            found = self.load(_heat_key(base, columns))
            if found is not None:
                maps[columns] = found
        new = sorted({keep.heat for keep in wish.keeps if keep.heat is not None} - set(maps))
        fresh = Recording(budget=wish.into.budget, device="cpu")
        tap = wish.tap(new, fresh)
        if stored is not None and known:
            made = Inversion([each.to(latents) for each in stored["latents"]], times)
            if tap is not None:
                walk(backbone, made, text, Taps(attention=tap), progress=progress)
        else:
            upward = guided(backbone, text, taps=Taps(attention=tap), stream="source")
            made = Inversion(invert(backbone, latents, upward, times, progress=progress), times)
            if self.folder is not None:
                self.save(base, {"latents": torch.stack(list(made.latents))})
        for columns in new:
            maps[columns] = {f"{site}@{t}": heat for (site, t), heat in fresh.all(_name(columns)).items()}
            self.save(_heat_key(base, columns), maps[columns])
        for keep in wish.keeps:
            if keep.heat is not None:
                _answer(backbone, keep, maps[keep.heat], wish.into, latents.device)
        return Inversion(made.latents, times, 0 if known and tap is None else len(times))

    def load(self, key: str) -> dict[str, Tensor] | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            found = load_file(path)
            os.utime(path)
        except (OSError, SafetensorError, ValueError) as error:
            warnings.warn(f"a stored inversion cannot be read and is made again: {error}", stacklevel=2)
            return None
        return found

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        path = self._path(key)
        if path is None:
            return
        half = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, half)
            half.replace(path)
            self._make_room(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                half.unlink()
            warnings.warn(f"the inversion could not be stored in {self.folder}: {error}", stacklevel=2)

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"

    def _make_room(self, newest: Path) -> None:
        assert self.folder is not None
        known = []
        for path in self.folder.glob("??/*.safetensors"):
            try:
                facts = path.stat()
            except OSError:  # another process made room at the same time
                continue
            known.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known, key=lambda each: each[0]):
            if total <= self.budget:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def walk(
    backbone: Backbone,
    inversion: Inversion,
    text: Text,
    taps: Taps,
    *,
    after: Callable[[Tensor, int], None] | None = None,
    progress: Progress = silent,
) -> None:
    """Run the network over an inversion that is known, for what its taps record; `after` sees each prediction."""
    predict = guided(backbone, text, taps=taps, stream="source")
    total = len(inversion.times)
    progress("recording", 0, total)
    for i, t in enumerate(inversion.times):
        out = predict(inversion.latents[i], t)
        if after is not None:
            after(out, t)
        progress("recording", i + 1, total)


def _spying(spy: Spy) -> AttentionTap:
    def tap(where: Where, qkv: QKV) -> Tensor:
        spy(where, qkv)
        return attend(qkv)

    return tap


def _answer(
    backbone: Backbone, keep: Keep, maps: dict[str, Tensor], into: Recording, device: torch.device
) -> None:
    """Of the stored heat, what this keep asked for."""
    for name, heat in maps.items():
        site, _, t = name.rpartition("@")
        where = Where(backbone.sites[site], int(t), Grid(*heat.shape), ("source",))
        if keep.wants(where):
            into.put(keep.name, where, heat.to(device))


def _name(columns: Columns) -> str:
    return "heat " + ",".join(map(str, columns))


def _key(backbone: Backbone, latents: Tensor, text: Text, times: Sequence[int]) -> str:
    """The latents stand for the clip: what the network sees of it, whatever the file was called."""
    digest = hashlib.sha256()
    about = [backbone.identity, str(backbone.dtype), text.prompt, list(times), list(latents.shape), "1"]
    digest.update(repr(about).encode("utf-8", "surrogateescape"))
    digest.update(latents.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:32]


def _heat_key(base: str, columns: Columns) -> str:
    return hashlib.sha256(f"{base}/{columns}".encode()).hexdigest()[:32]
