"""ControlNets beside an image network: what images of edges, depth or poses add to its layers, frame by frame."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call, SiteProcessor, Slot
from freemask.backbones import checkpoint, identity
from freemask.backbones.given import must_be, must_lie, text_must_be
from freemask.backbones.inflation import foreign
from freemask.backbones.quick import quicken
from freemask.control.how import How
from freemask.control.images import Paths, listed
from freemask.errors import UserError
from freemask.types import NO_TAPS, Clip, NoisePath, Site, Time

KIND = "ControlNetModel"
STRENGTH, TEXT = "control_strength", "control_text"
IMAGES = "f 3 h w in 0..1, as large as the frames"
LEFT_OUT = {
    STRENGTH: "a number, or one for each ControlNet; the model's where it is left out, and 0 switches it off",
    TEXT: "what the ControlNets read; as 'text' where it is left out",
}
# In place of those that ship, beside Stable Diffusion 1.
OTHERS = {
    "embedded_edges": "model.control=lllyasviel/sd-controlnet-canny model.control_images=edges",
    "embedded_depth": "model.control=lllyasviel/control_v11f1p_sd15_depth model.control_images=depth"
    " model.control_depth.weights=DIR",
}
ALIKE = ("block_out_channels", "layers_per_block", "cross_attention_dim")

Part = tuple[checkpoint.Checkpoint, str]


class Control:
    """What several ControlNets say is added up. They see the latents alone, without input channels beside them."""

    def __init__(
        self, nets: Sequence[Any], unet: Any, multiple: int, path: NoisePath, how: How | None = None
    ) -> None:
        for place, net in enumerate(nets):
            _fit(name(place), net.config, unet.config, multiple)
        self.nets = [net.eval().requires_grad_(False) for net in nets]
        for net in self.nets:
            quicken(net)
        self.unet, self.multiple, self.path = unet, multiple, path
        self.how = How.of(len(nets)) if how is None else how
        self._seen: tuple[Clip, dict[str, Tensor]] | None = None

    def looking(self, slot: Slot) -> None:
        """Once, at construction: from now on frames look at each other in the ControlNets too, where that is wanted."""
        for net in self.nets if self.how.look else ():
            made = dict(net.attn_processors)
            for name in made:
                if name.endswith("attn1.processor"):
                    site = Site(name.removesuffix(".processor"), "self", 1, look=self.how.look)
                    made[name] = SiteProcessor(site, Unheard(slot))
            net.set_attn_processor(made)

    @property
    def takes(self) -> dict[str, str]:
        images = {name(place): IMAGES for place in range(len(self.nets))}
        return images | LEFT_OUT if images else {}

    def seen(self, clip: Clip) -> dict[str, Tensor]:
        """What the ControlNets are shown of a clip that does not bring images for them, where it is known what that is.
        A clip is looked at once, for several streams ask."""
        if self._seen is None or self._seen[0] is not clip:
            self._seen = clip, self._shown(clip)
        return self._seen[1]

    def _shown(self, clip: Clip) -> dict[str, Tensor]:
        makers = {name(place): images for place, images in enumerate(self.how.shown)}
        wanted = {name: images for name, images in makers.items() if images and name not in clip.conditions}
        return {name: images(clip, str(self.unet.device)) for name, images in wanted.items()}

    def completed(self, parts: Mapping[str, Tensor], x: Float[Tensor, "lf c lh lw"]) -> Mapping[str, Tensor]:
        """What one stream is given: its images are checked, what it leaves out is put in."""
        if not self.nets:
            return parts
        for place in range(len(self.nets)):
            if (images := parts.get(name(place))) is not None:
                size = (len(x), 3, x.shape[-2] * self.multiple, x.shape[-1] * self.multiple)
                must_be(name(place), images, "frames, channels, height, width", size)
                must_lie(name(place), images, 0, 1)
        strength = parts.get(STRENGTH, torch.tensor(self.how.strengths))
        must_be(STRENGTH, strength, "one for all, or one for each ControlNet", (), (len(self.nets),))
        if TEXT in parts:
            text_must_be(TEXT, parts[TEXT], self.unet.config.cross_attention_dim, len(x))
        text = {TEXT: parts["text"]} if "text" in parts else {}
        return text | {**parts, STRENGTH: strength.expand(len(self.nets))}

    @contextmanager
    def adding(
        self, maps: Float[Tensor, "sf c lh lw"], t: Time, parts: Mapping[str, Tensor]
    ) -> Iterator[dict[str, Any]]:
        """What the network is to be called with meanwhile; nothing where no ControlNet acts."""
        residuals = self._residuals(maps, t, parts)
        if not residuals:
            yield {}
            return
        *down, middle = residuals
        hook = None
        if self.how.into_middle:
            hook = self.unet.mid_block.register_forward_pre_hook(
                lambda module, given: (given[0] + down[-1], *given[1:])
            )
        try:
            yield {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        finally:
            if hook is not None:
                hook.remove()

    def _residuals(self, maps: Tensor, t: Time, parts: Mapping[str, Tensor]) -> list[Tensor]:
        """What is added to each map that the network keeps on its way down and, last, to that of its middle."""
        found: list[Tensor] = []
        acting, told = self.how.acting(t, self.path), self.path.told(t)
        for place, net in enumerate(self.nets):
            strength = parts[STRENGTH][:, place]
            if not acting[place] or not bool(strength.any()):
                continue
            frames = parts[name(place)].shape[1]
            images = rearrange(parts[name(place)], "s f c h w -> (s f) c h w")
            scale = repeat(strength, "s -> (s f) 1 1 1", f=frames)
            text = in_frames(parts[TEXT], frames)
            down, middle = net(maps, told, text, images, conditioning_scale=scale, return_dict=False)
            said = [*down, middle]
            found = [a + b for a, b in zip(found, said, strict=True)] if found else said
        return found


@dataclass
class Unheard(Slot):
    """A call whose taps hear nothing of these layers: they are not among the network's sites."""

    slot: Slot

    @property
    def call(self) -> Call:
        return replace(self.slot.call, taps=NO_TAPS)


def name(place: int) -> str:
    """What the images of a ControlNet are called among what a stream is given."""
    return f"control.{place}" if place else "control"


def in_frames(text: Tensor, frames: int) -> Float[Tensor, "sf l d"]:
    """A text for each frame, from one for all or one for each (`s l d` or `s f l d`)."""
    text = repeat(text, "s l d -> s f l d", f=frames) if text.ndim == 3 else text
    return rearrange(text, "s f l d -> (s f) l d")


def find(paths: Paths, **options: bool) -> list[Part]:
    """Where ControlNets lie: their own folders, or hub ids. `options` as for `checkpoint.find_part`."""
    return [checkpoint.find_part(path, **options) for path in listed(paths)]


def load(found: Sequence[Part], dtype: torch.dtype, device: torch.device) -> list[Any]:
    return [files.part(part, (KIND,), dtype).to(device) for files, part in found]


def identities(found: Sequence[Part], how: How) -> list[str]:
    """What counts of ControlNets in the identity of a model: nothing where there are none."""
    return [*(identity.of_folder(files.folder / part, ["."]) for files, part in found), *how.identity]


def refuse_foreign(path: str | Path, control: Paths) -> None:
    """A ControlNet that ships with the project beside a model that is fetched from a hub."""
    ours = [name for name in listed(control) if name in checkpoint.SHIPPED_PARTS]
    if ours and str(path) not in checkpoint.SHIPPED and not Path(path).expanduser().exists():
        raise UserError(
            "This ControlNet was trained for model=embedded_image; this model needs one of its own.",
            came=f"model.control={ours[0]} for {path}",
            expected="a folder or hub id of a ControlNet for this model",
            todo=f"for Stable Diffusion 1.4 and 1.5: {OTHERS[ours[0]]}",
        )


def refuse_misfits(found: Sequence[Part], unet: Mapping[str, Any]) -> None:
    """By what their files say, before any weights are read."""
    for place, (files, part) in enumerate(found):
        net = files.config(part)
        wrong = [key for key in ALIKE if key in net and key in unet and _plain(net[key]) != _plain(unet[key])]
        if wrong:
            raise _misfit(
                name(place),
                ", ".join(f"{key} {_plain(net[key])}" for key in wrong),
                ", ".join(f"{key} {_plain(unet[key])}" for key in wrong),
            )


def _misfit(name: str, came: str, expected: str) -> UserError:
    return UserError(
        f"The ControlNet '{name}' does not fit the image network.",
        came=came,
        expected=expected,
        todo="take one that was trained for this model",
    )


def _fit(name: str, net: Mapping[str, Any], unet: Mapping[str, Any], multiple: int) -> None:
    """Refuse a ControlNet whose additions, text, latents or images are of another size than the network's."""
    factor = 2 ** (len(net["conditioning_embedding_out_channels"]) - 1)
    pairs = {key: (net[key], unet[key]) for key in ALIKE}
    pairs |= {"channels of latents": (net["in_channels"], unet["out_channels"])}
    pairs |= {"channels of images": (net.get("conditioning_channels", 3), 3)}
    pairs |= {"pixels in a cell of the latent": (factor, multiple)}
    wrong = {key: pair for key, pair in pairs.items() if _plain(pair[0]) != _plain(pair[1])}
    asked = foreign(net) + ["global_pool_conditions"] * bool(net.get("global_pool_conditions"))
    if wrong or asked:
        raise _misfit(
            name,
            ", ".join([*(f"{key} {_plain(pair[0])}" for key, pair in wrong.items()), *asked]),
            ", ".join(f"{key} {_plain(pair[1])}" for key, pair in wrong.items())
            or "a ControlNet like those of Stable Diffusion 1 or 2: latents, a time, a text and an image",
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
