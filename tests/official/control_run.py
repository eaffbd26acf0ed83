"""What all cases of networks with ControlNets need: the model, and what its ControlNet adds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, Ledger, relative


class Run:
    """A case of Stable Diffusion with a ControlNet, loaded as a user would, and the errors found so far."""

    look: Sequence[str] = ()  # overrides that say how frames look at each other

    def __init__(self, case: Case, ledger: Ledger, wanted: Wanted) -> None:
        self.case, self.ledger, self.wanted = case, ledger, wanted
        self.limit = case.number("teacher_forced", 1e-4)
        named = case.about.get("controlnet_dir")
        net = case.model / "controlnet" if named is None else case.folder / named
        words = ["model=sd15", quoted("model.path", str(case.model)), quoted("model.control", str(net))]
        words += [f"model.dtype={case.about.get('dtype', 'float32')}", "model.device=cpu", *self.look]
        print("freemask ... " + " ".join(words))
        self.config = plain(config_of("edit", words))
        self.backbone: Any = build(self.config["model"], "model")
        self.path = self.backbone.noise_path

    @cached_property
    def images(self) -> Tensor:
        return rearrange(self.case["control/images_u8"], "f h w c -> f c h w").float() / 255

    @property
    def strength(self) -> Tensor:
        return torch.tensor(float(self.case.about.get("controlnet_conditioning_scale", 1)))

    def steps(self, total: int) -> range:
        return range(total if self.wanted.steps is None else min(self.wanted.steps, total))

    def note(self, group: str, where: str, ours: Tensor, theirs: Tensor, mode: str = FORCED) -> None:
        self.ledger.note(group, mode, where, relative(ours, theirs), self.limit)

    @contextmanager
    def residuals(self) -> Iterator[list[Tensor]]:
        """What the ControlNet adds in the calls meanwhile, `s c f h w` and strength included: the last call's."""
        found: list[Tensor] = []

        def keep(module: Any, args: Any, out: tuple[Sequence[Tensor], Tensor]) -> None:
            found[:] = [*out[0], out[1]]

        hook = self.backbone.control.nets[0].register_forward_hook(keep)
        try:
            yield found
        finally:
            hook.remove()

    def added(self, key: str, found: Sequence[Tensor], streams: int, strength: float = 1) -> None:
        """What is stored of the additions under this key: their sizes (rms), and some whole."""
        case, group = self.case, f"{key.split('/')[0]}: ControlNet"
        if f"{key}/rms" in case:
            sizes = torch.stack([each.double().square().mean().sqrt() for each in found]) / strength
            self.note(group, f"{key}/rms", sizes.float(), case[f"{key}/rms"])
        for name in case.names(f"{key}/"):
            which = name.rpartition("/")[2]
            if which == "rms":
                continue
            maps = found[-1 if which == "mid" else int(which.removeprefix("down"))] / strength
            self.note(group, name, rearrange(maps, "(s f) c h w -> s c f h w", s=streams), case[name])
