"""Stable Diffusion as a text-to-video model: an image network that runs on all frames at once, as in FateZero."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call, SiteProcessor
from freemask.backbones import (
    controlnets,
    fresh,
    gated,
    gated_weights,
    identity,
    inflate,
    inflate_weights,
    tiny,
    weightless,
)
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.controlnets import Control, in_frames
from freemask.backbones.inflation import Inflation
from freemask.backbones.network import GUIDANCE, dtype_of, of_prompts
from freemask.backbones.sites import attention_sites
from freemask.backbones.unet import COMPONENTS, Loaded, UNet, load, placed
from freemask.backbones.weightless import Weights
from freemask.control.depth import Depth, as_channel
from freemask.control.edges import Edges
from freemask.control.how import WHOLE, How, Strength, Window
from freemask.control.images import DEPTH, LATENTS, Images, Paths, listed, shown
from freemask.diffusion.noise_paths import one_of
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Clip, Given

UNET = "UNet2DConditionModel"


class Inflated2D(UNet):
    """A UNet2DConditionModel over the frames of a clip."""

    def __init__(
        self,
        parts: Loaded,
        inflation: Inflation,
        *,
        name: str,
        attention_slicing: int = 0,
        control: Control | None = None,
        alone: str = "",
    ) -> None:
        """`alone` is its name without ControlNets and lent gated layers, as codebooks were measured."""
        self.inflation, self.alone = inflation, alone or name
        self.depth: Depth | None = None  # shown as a channel beside the latents
        self.shows_latents = False  # those of the clip, beside the noisy ones
        self.control = _beside(parts, []) if control is None else control
        self.gated = gated.Gated.of(parts.unet)
        super().__init__(
            parts,
            name=name,
            attention_slicing=attention_slicing,
            look=inflation.look,
            takes={**self.control.takes, **({} if self.gated is None else gated.TAKES)},
        )
        if inflation.shared_norm:
            for norm in (norm for net in (self.unet, *self.control.nets) for norm in inflate.norms(net)):
                inflate.share(norm, self._slot)
        inflate.serve_temporal(self.unet.modules(), self._slot)
        self.control.looking(self._slot)

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES] = "embedded_image",
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        attention: str | Sequence[int | str] = "middle",
        least_channels: int | None = None,
        shared_norm: bool = True,
        temporal: Annotated[str | Path | None, Effect.FILES] = None,
        gated: Annotated[str | Path | None, Effect.FILES] = None,
        control: Annotated[Paths, Effect.FILES] = None,
        control_images: Annotated[Paths, Effect.FILES] = None,
        control_edges: Edges | None = None,
        control_depth: Depth | None = None,
        control_strength: Strength = 1,
        control_window: Window = WHOLE,
        control_middle: bool = False,
        control_attention: str | Sequence[int | str] = "frame",
        weights: Annotated[Weights | None, Effect.SAID] = None,
        channels: str | None = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = GUIDANCE,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_slicing: Annotated[bool, Effect.NONE] = False,
        vae_tiling: bool = False,
        vae_batch: Annotated[int, Effect.NONE] = 8,
    ) -> "Inflated2D":
        """`path` is 'embedded_image', a folder in diffusers layout, or a hub id.

        `attention`: whom self-attention looks at: middle, self_and_middle, first_and_previous, window, all, frame, or
        a list of first, mid, last and frame offsets. Layers narrower than `least_channels` stay frame by frame
        (None: those of the finest level). `shared_norm`: group norms of convolution blocks over the whole clip.
        `temporal`: temporal layers, from a file or from the folder of a tuned checkpoint. `gated`: gated layers, which
        read boxes, for a network that came without: 'embedded_boxes', a file or a folder. `control`: ControlNets, which
        run frame by frame; `control_images`: what each is shown of a clip that does not bring it: edges, as
        `control_edges` makes them, depth, as `control_depth` does, or a folder of pictures (None: what it was taught);
        `control_strength` and `control_window`: how strongly they act, and in which share of the path from noise to a
        picture; `control_middle`: the middle block sees their last addition, as in diffusers before 0.15;
        `control_attention`: whom frames look at inside them, as in `attention`. `channels`: what a network with
        channels too many is shown of a clip that does not bring it: depth, as `control_depth` knows it, in one;
        latents, those of the clip as the autoencoder has them, in as many as those have (InstructPix2Pix); None:
        nothing. The rest as for UNet3D.
        """
        controlnets.refuse_foreign(path, control)
        gated_weights.refuse_foreign(path, gated)
        depth = _depth(channels, control_depth)
        options = {"into_middle": control_middle, "attention": control_attention}
        how = How.of(len(listed(control)), control_strength, control_window, **options)
        how = how.showing(shown(control, control_images, control_edges, control_depth))
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        inflation = Inflation.of(_config(files), attention, least_channels, shared_norm)
        nets = controlnets.find(control, local_files_only=local_files_only, allow_pickle=allow_pickle)
        controlnets.refuse_misfits(nets, files.config("unet"))
        name = _name(files, inflation, temporal, gated, controlnets.identities(nets, how))
        vae = {"batch": vae_batch, "slicing": vae_slicing, "tiling": vae_tiling}
        parts = load(files, UNET, device=device, dtype=dtype, vae=vae)
        if temporal is not None:
            inflate_weights.mount(parts.unet, inflate_weights.read(temporal, allow_pickle=allow_pickle))
        if gated is not None:
            gated_weights.mount(parts.unet, gated_weights.read(gated))
        made = _beside(parts, controlnets.load(nets, dtype_of(dtype), parts.unet.device), how)
        slicing, alone = attention_slicing, _name(files, inflation, temporal, None, [])
        whole = cls(parts, inflation, name=name, attention_slicing=slicing, control=made, alone=alone)
        whole.depth, whole.shows_latents = depth, channels == LATENTS
        _refuse_others(channels, whole.more, int(parts.unet.config.out_channels))
        whole.guidance = of_prompts(guidance)
        return whole

    @classmethod
    def identify(  # noqa: PLR0913 -- those arguments of `load` that choose the model
        cls,
        path: str | Path = "embedded_image",
        *,
        attention: str | Sequence[int | str] = "middle",
        least_channels: int | None = None,
        shared_norm: bool = True,
        temporal: str | Path | None = None,
        gated: str | Path | None = None,
        control: Paths = None,
        control_strength: Strength = 1,
        control_window: Window = WHOLE,
        control_middle: bool = False,
        control_attention: str | Sequence[int | str] = "frame",
        weights: Weights | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> str:
        """The identity of what `load` would make, from the files alone."""
        controlnets.refuse_foreign(path, control)
        gated_weights.refuse_foreign(path, gated)
        options = {"into_middle": control_middle, "attention": control_attention}
        how = How.of(len(listed(control)), control_strength, control_window, **options)
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        inflation = Inflation.of(_config(files), attention, least_channels, shared_norm)
        nets = controlnets.find(control, local_files_only=local_files_only, allow_pickle=allow_pickle)
        return _name(files, inflation, temporal, gated, controlnets.identities(nets, how))

    @classmethod
    def shows(  # noqa: PLR0913 -- those arguments of `load` that choose images
        cls,
        path: str | Path = "embedded_image",
        control: Paths = None,
        control_images: Paths = None,
        control_edges: Edges | None = None,
        control_depth: Depth | None = None,
        control_strength: Strength = 1,
        control_window: Window = WHOLE,
        channels: str | None = None,
    ) -> dict[str, Images | None]:
        """Who would make the images of a clip, by their names. What is said of ControlNets makes sense as far as it can
        be known without them."""
        controlnets.refuse_foreign(path, control)
        How.of(len(listed(control)), control_strength, control_window)
        found = shown(control, control_images, control_edges, control_depth)
        depth = _depth(channels, control_depth)
        beside: dict[str, Images | None] = {} if depth is None else {"channels": depth}
        return {**beside, **{controlnets.name(place): each for place, each in enumerate(found)}}

    @classmethod
    def random(  # noqa: PLR0913 -- as for load
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        prediction: str = "epsilon",
        max_tokens: int = 77,
        attention: str | Sequence[int | str] = "middle",
        least_channels: int | None = None,
        shared_norm: bool = True,
        temporal: Annotated[str | Path | None, Effect.FILES] = None,
        gated: bool | str | None = False,
        control: int | str | Sequence[str] | None = 0,
        control_middle: bool = False,
        control_attention: str | Sequence[int | str] = "frame",
        control_edges: Edges | None = None,
        channels: str | None = None,
    ) -> "Inflated2D":
        """A tiny network with random weights: no files, no meaning, every code path. `control`: so many ControlNets.
        `gated`: whether it has gated layers, which read boxes. `channels`: latents, or None."""
        control, boxes = _number(control), _whether(gated)
        if channels is not None:
            one_of("channels of a random network (model.channels)", channels, (LATENTS,))
        more = 0 if channels is None else tiny.LATENT
        made = tiny.parts(seed, dtype_of(dtype), prediction, max_tokens, image=True, more=more)
        layered = tiny.gated_layers(made.unet, seed) if boxes else {}
        nets = tiny.control_nets(made.unet, seed, control)
        parts_alone = {"unet": made.unet, "vae": made.vae, "text_encoder": made.text_encoder}
        modules = parts_alone | {f"control {place}": net for place, net in enumerate(nets)} | layered
        inflation = Inflation.of(made.unet.config, attention, least_channels, shared_norm)
        bare = {"scheduler": made.scheduler, "tokens": max_tokens}
        how = How.of(control, 1, WHOLE, into_middle=control_middle, attention=control_attention)
        how = how.showing((control_edges,) * control)
        facts = bare | ({"into the middle": True} if control and control_middle else {})
        facts |= {"controls look": how.look} if control and how.look else {}
        layers = None if temporal is None else inflate_weights.identity_of(temporal)
        name = inflation.identity(identity.of_modules(modules, facts), layers)
        beside = bool(nets or layered)
        alone = inflation.identity(identity.of_modules(parts_alone, bare), layers) if beside else name
        gated_weights.put(made.unet, layered)
        if temporal is not None:
            inflate_weights.mount(made.unet, inflate_weights.read(temporal))
        parts = placed(made, device)
        moved = [net.to(parts.unet.device) for net in nets]
        whole = cls(parts, inflation, name=name, control=_beside(parts, moved, how), alone=alone)
        whole.shows_latents = channels == LATENTS
        return whole

    def fresh(self, kind: str, *, seed: int, bias: bool, rank: int) -> dict[str, Tensor]:
        if any(hasattr(module, "attn_temporal") for module in self.unet.modules()):
            return {}  # those that the model came with are tuned further
        return fresh.temporal(self.unet, kind, seed=seed, bias=bias, rank=rank)

    @contextmanager
    def _with_layers(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Their attention is among the sites meanwhile."""
        before = self.sites
        made = inflate_weights.add(self.unet, weights, idle=True)
        hooks = inflate.serve_temporal(dict.fromkeys(owner for owner, _ in made), self._slot)
        try:
            for owner, name in made:
                owner.get_submodule(name).eval().requires_grad_(False)
            self.sites = MappingProxyType(attention_sites(self.unet, self.inflation.look))
            for name in self.sites.keys() - before.keys():
                self.unet.get_submodule(name).set_processor(SiteProcessor(self.sites[name], self._slot))
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for owner, name in made:
                delattr(owner, name)
            self.sites = before

    def seen(self, clip: Clip) -> Mapping[str, Tensor]:
        shown = self.control.seen(clip)
        if "channels" in clip.conditions:
            return shown
        if self.shows_latents:
            return {**shown, "channels": self.codec.unscaled(self.encode(clip.frames))}
        if self.depth is None:
            return shown
        height, width = (side // self.multiple for side in clip.frames.shape[-2:])
        near = self.depth(clip, str(self.device))[:, :1]
        return {**shown, "channels": as_channel(near, height, width)}

    def describe(self) -> dict[str, Any]:
        found = super().describe()
        alone = "self-attention stays within each frame: no layer has"
        across = [site for site in self.sites.values() if site.look]
        if self.inflation.wanted and not across:
            found["warnings"].append(f"{alone} {self.inflation.least_channels} channels (least_channels)")
        looks = [str(each) for each in self.inflation.wanted] or ["frame"]
        found |= {"attention": ", ".join(looks), "layers across frames": len(across)}
        found |= {} if self.gated is None else {"gated layers": "boxes with phrases"}
        return found | ({"ControlNets": len(self.control.nets)} if self.control.nets else {})

    def _completed(self, given: Given, x: Float[Tensor, "lf c lh lw"]) -> Given:
        parts = self.control.completed(super()._completed(given, x).parts, x)
        return Given(parts if self.gated is None else self.gated.completed(parts, x))

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], parts: Mapping[str, Tensor], call: Call
    ) -> Float[Tensor, "s lf c lh lw"]:
        streams, frames = x.shape[:2]
        # One layout in memory, whoever calls: kernels round differently for others.
        maps, seen = (
            rearrange(each, "s f c h w -> (s f) c h w").contiguous()
            for each in (x, self._with_channels(x, parts))
        )
        text, told = in_frames(parts["text"], frames), self.noise_path.told(call.t)
        boxes = {} if self.gated is None else self.gated.asked(parts, call)
        with self.control.adding(maps, call.t, parts) as more:
            out = self.unet(seen, told, text, return_dict=False, **boxes, **more)[0]
        return rearrange(out, "(s f) c h w -> s f c h w", s=streams)


def _number(control: object) -> int:
    if control is None or isinstance(control, int) and not isinstance(control, bool) and control >= 0:
        return control or 0
    raise UserError(
        "This model makes its ControlNets itself, with random weights.",
        came=f"model.control={control}",
        expected="how many there are to be: 0, 1, 2, ...",
        todo="add model.control=1",
    )


def _whether(gated: object) -> bool:
    if gated is None or isinstance(gated, bool):
        return bool(gated)
    raise UserError(
        "This model makes its gated layers itself, with random weights.",
        came=f"model.gated={gated}",
        expected="true or false",
        todo="add model.gated=true",
    )


def _depth(channels: str | None, depth: Depth | None) -> Depth | None:
    """Who shows the network what it takes beside latents; its own autoencoder needs nobody."""
    if channels is not None:
        one_of("image beside latents (model.channels)", channels, (DEPTH, LATENTS))
    return (depth or Depth()) if channels == DEPTH else None


def _refuse_others(channels: str | None, more: int, latents: int) -> None:
    """`more`: input channels that the network has beside those of its latents."""
    wanted = {None: more, DEPTH: 1, LATENTS: latents}[channels]
    if more == wanted:
        return
    what, who = {
        DEPTH: ("image of depth beside its latents", "one more, as Stable Diffusion 2 with depth has"),
        LATENTS: ("latents of the clip beside its own", f"{latents} more, as InstructPix2Pix has"),
    }[channels or DEPTH]
    raise UserError(
        f"This network takes no {what}.",
        came=f"model.channels={channels}, a network with {more} channels more than it puts out",
        expected=who,
        todo="model.channels=null",
    )


def _beside(parts: Loaded, nets: Sequence[Any], how: How | None = None) -> Control:
    return Control(nets, parts.unet, parts.codec.multiple, parts.noise_path, how)


def _config(files: Checkpoint) -> dict[str, Any]:
    files.kind("unet", (UNET,))
    return files.config("unet")


def _name(
    files: Checkpoint,
    inflation: Inflation,
    temporal: str | Path | None,
    boxes: str | Path | None,
    control: Sequence[str],
) -> str:
    layers = (
        None if temporal is None else inflate_weights.identity_of(temporal, allow_pickle=files.allow_pickle)
    )
    read = None if boxes is None else gated_weights.identity_of(boxes)
    return files.marked(inflation.identity(files.identity(COMPONENTS), layers, control, read))
