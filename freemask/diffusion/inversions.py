"""Inversions that are made once: latents and word heat, kept on disk for every method, prompt and run."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.record import GIB, Keep, Recording, Spy, Words, heat_of_words, recorder, spying
from freemask.diffusion.guidance import Predict, guided
from freemask.diffusion.loops import invert
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.solvers import EULER
from freemask.kept import Kept
from freemask.types import (
    NO_TAPS,
    AttentionTap,
    Backbone,
    Given,
    Grid,
    Progress,
    Taps,
    Text,
    Time,
    Where,
    silent,
)


@dataclass(frozen=True)
class Inversion:
    """`latents` at the levels [CLEAN, *times]; `kept` what was wished of its attention; `passes` counts how often the
    network ran for it. `inputs` is what the network saw at each of the times, where that was no latent of the way."""

    latents: Sequence[Float[Tensor, "f c h w"]]
    times: Sequence[Time]
    passes: int = 0
    kept: Recording = field(default_factory=Recording)
    inputs: Sequence[Float[Tensor, "f c h w"]] = ()

    def at(self, level: Time) -> Float[Tensor, "f c h w"]:
        """The latent of a level."""
        return self.latents[[CLEAN, *self.times].index(level)]

    def input_at(self, t: Time) -> Float[Tensor, "f c h w"]:
        """What the network saw at time t: the latent one level below, where nothing else was noted."""
        return (self.inputs or self.latents)[list(self.times).index(t)]


@dataclass(frozen=True)
class Wish:
    """What is to be recorded on the way, within a budget: keeps, and a spy that sees all attention of the clip. `at`
    are the times at which heat is wanted, where they are fewer than those of the way. `under` are taps under which the
    network is to run, and `named` tells them apart from others in a store."""

    keeps: Sequence[Keep] = ()
    spy: Spy | None = None
    budget: int = 4 * GIB
    at: Collection[Time] | None = None
    under: Taps = NO_TAPS
    named: str = ""

    @property
    def heats(self) -> set[Words]:
        return {keep.heat for keep in self.keeps if keep.heat is not None}

    def tap(self, keeps: Sequence[Keep], into: Recording) -> AttentionTap | None:
        tap = self.under.attention
        tap = tap if self.spy is None else spying(self.spy, "source", then=tap)
        return recorder(keeps, into, then=tap) if keeps else tap


class Inversions(Kept):
    """Inversions of clips, each under a hash of clip, prompt, backbone, times and dtype."""

    def __init__(self, folder: str | Path | None = None, budget_gb: float | int = 4) -> None:
        super().__init__(folder, budget_gb, "inversion")

    def invert(  # noqa: PLR0913 -- as freemask.diffusion.loops.invert
        self,
        backbone: Backbone,
        latents: Float[Tensor, "f c h w"],
        given: Text | Given,
        steps: int | Sequence[Time],
        *,
        solver: str = EULER,
        wish: Wish | None = None,
        progress: Progress = silent,
    ) -> Inversion:
        """The inversion under a prompt at guidance 1, and what is wished of it; from the store where it is known.

        Heat of words is stored whole (every text layer and wished time), so that any choice of layers finds it again.
        For other keeps, and for a spy, the network runs again on the known latents.
        """
        wish = Wish() if wish is None else wish
        given = given.given if isinstance(given, Text) else given
        times = list(backbone.noise_path.times(steps) if isinstance(steps, int) else steps)
        more = [each for each in (solver, wish.named) if each not in (EULER, "")]
        base, at = key_of(backbone, latents, given, times, more), wish.at or times
        made = self._known(base, times, latents)
        known = {words: self.load(_heat_key(base, words, at)) for words in wish.heats if made}
        maps = {words: found for words, found in known.items() if found is not None}
        new = sorted(wish.heats - set(maps), key=str)
        kept, fresh = Recording(wish.budget), Recording(wish.budget, device="cpu")
        heats = [heat_of_words(str(words), words, times=at, stream="source") for words in new]
        others = [keep for keep in wish.keeps if keep.heat is None]
        tap = wish.tap(others, kept)
        taps = replace(wish.under, attention=recorder(heats, fresh, then=tap) if heats else tap)
        recorded = bool(heats or others) or wish.spy is not None
        passes = len(times) if recorded else 0
        if made is None:
            upward = Watched(guided(backbone, given, taps=taps, stream="source"))
            path = invert(backbone, latents, upward, times, solver=solver, progress=progress)
            made = Inversion(path, times, inputs=upward.apart(path, times))
            passes = upward.calls
            if self.folder is not None:
                self.save(base, _tensors(made))
        elif recorded:
            walk(backbone, made, given, taps, progress=progress)
        for words in new:
            maps[words] = {f"{site}@{t}": heat for (site, t), heat in fresh.all(str(words)).items()}
            self.save(_heat_key(base, words, at), maps[words])
        for keep in wish.keeps:
            if keep.heat is not None:
                _answer(backbone, keep, maps[keep.heat], kept, latents.device)
        return replace(made, passes=passes, kept=kept)

    def _known(self, key: str, times: Sequence[Time], like: Tensor) -> Inversion | None:
        stored = self.load(key)
        if stored is None or len(stored.get("latents", ())) != len(times) + 1:
            return None
        latents, inputs = ([each.to(like) for each in stored.get(name, ())] for name in ("latents", "inputs"))
        return Inversion(latents, times, inputs=inputs)


@dataclass
class Watched:
    """A prediction that counts its calls, and notes what the network was shown."""

    predict: Predict
    calls: int = 0
    seen: dict[Time, Tensor] = field(default_factory=dict)

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        self.calls += 1
        self.seen[t] = x
        return self.predict(x, t)

    def apart(self, latents: Sequence[Tensor], times: Sequence[Time]) -> list[Tensor]:
        """What was shown at each time, where that was not the latent one level below."""
        if all(self.seen.get(t) is below for below, t in zip(latents, times, strict=False)):
            return []
        if set(times) - set(self.seen):  # a solver that asks between the times
            return []
        return [self.seen[t] for t in times]


@torch.no_grad()
def walk(
    backbone: Backbone,
    inversion: Inversion,
    given: Text | Given,
    taps: Taps,
    *,
    progress: Progress = silent,
) -> None:
    """Run the network over an inversion that is known, for what its taps record."""
    predict = guided(backbone, given, taps=taps, stream="source")
    total = len(inversion.times)
    progress("recording", 0, total)
    for i, t in enumerate(inversion.times):
        predict(inversion.input_at(t), t)
        progress("recording", i + 1, total)


def _answer(
    backbone: Backbone, keep: Keep, maps: dict[str, Tensor], into: Recording, device: torch.device
) -> None:
    """Of the stored heat, what this keep asked for."""
    for name, heat in maps.items():
        site, _, t = name.rpartition("@")
        where = Where(backbone.sites[site], _number(t), Grid(*heat.shape), ("source",))
        if keep.wants(where):
            into.put(keep.name, where, heat.to(device))


def _tensors(inversion: Inversion) -> dict[str, Tensor]:
    parts = {"latents": inversion.latents, "inputs": inversion.inputs}
    return {name: torch.stack(list(values)) for name, values in parts.items() if values}


def _number(text: str) -> Time:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def key_of(
    backbone: Backbone, latents: Tensor, given: Given, times: Sequence[Time], more: Sequence[object] = ()
) -> str:
    """The latents stand for the clip: what the network sees of it, whatever the file was called. `more`: what else is
    stored than the inversion."""
    digest = hashlib.sha256()
    about = [backbone.identity, str(backbone.dtype), backbone.noise_path, given.digest, times]
    about += [list(latents.shape), "3", *more]
    digest.update(repr(about).encode("utf-8", "surrogateescape"))
    digest.update(latents.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:32]


def _heat_key(base: str, words: Words, times: Collection[Time]) -> str:
    return hashlib.sha256(f"{base}/{words}/{sorted(times)}".encode()).hexdigest()[:32]
