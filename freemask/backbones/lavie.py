"""LaVie, a text-to-video network made of Stable Diffusion 1.4, behind the door."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call
from freemask.backbones import identity, inflate, lavie_weights, tiny
from freemask.backbones.controlnets import in_frames
from freemask.backbones.lavie_unet import AlongFrames, LaVieUNet, serve
from freemask.backbones.lavie_weights import HUB, IMAGE_MODEL, NOISE
from freemask.backbones.network import GUIDANCE, dtype_of, of_prompts
from freemask.backbones.parts import sides
from freemask.backbones.unet import COMPONENTS, Loaded, UNet, load, placed
from freemask.backbones.weightless import Weights
from freemask.settings import Effect

KIND = "LaVieUNet"
SIZE = (320, 512)


class LaVie(UNet):
    """A LaVieUNet with its autoencoder and text encoder. In self-attention every frame looks at itself; group norms of
    convolution blocks are over the whole clip."""

    def __init__(self, parts: Loaded, *, name: str, attention_slicing: int = 0) -> None:
        super().__init__(parts, name=name, attention_slicing=attention_slicing)
        for norm in inflate.norms(self.unet):
            inflate.share(norm, self._slot)
        for site in self.sites.values():
            if site.role == "temporal":
                self.unet.get_submodule(site.name).set_processor(AlongFrames(site, self._slot))
        serve(self.unet, self._slot)

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES] = HUB,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        image_model: Annotated[str | Path, Effect.FILES] = IMAGE_MODEL,
        native: Sequence[int] = SIZE,
        weights: Annotated[Weights | None, Effect.SAID] = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = GUIDANCE,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_slicing: Annotated[bool, Effect.NONE] = False,
        vae_tiling: bool = False,
        vae_batch: Annotated[int, Effect.NONE] = 8,
    ) -> "LaVie":
        """`path` is the authors' file, a folder with it, or a hub id; `image_model` a folder in diffusers layout or a
        hub id, which tells the network's size and has its text encoder and autoencoder. `native`: height and width
        that it was made for. The rest as for UNet3D."""
        files = lavie_weights.find(path, image_model, weights, revision, local_files_only, allow_pickle)
        vae = {"batch": vae_batch, "slicing": vae_slicing, "tiling": vae_tiling}
        parts = load(files, KIND, device=device, dtype=dtype, vae=vae)
        made = cls(parts, name=files.identity(COMPONENTS), attention_slicing=attention_slicing)
        height, width = sides("native", native, 2)
        made.native, made.guidance = (height, width), of_prompts(guidance)
        return made

    @classmethod
    def identify(  # noqa: PLR0913 -- those arguments of `load` that choose the model
        cls,
        path: str | Path = HUB,
        *,
        image_model: str | Path = IMAGE_MODEL,
        weights: Weights | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> str:
        """The identity of what `load` would make, from the files alone."""
        files = lavie_weights.find(path, image_model, weights, revision, local_files_only, allow_pickle)
        return files.identity(COMPONENTS)

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        prediction: str = "epsilon",
        max_tokens: int = 77,
    ) -> "LaVie":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made = tiny.parts(seed, dtype_of(dtype), prediction, max_tokens, image=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = torch.nn.Module.to(LaVieUNet(**tiny.UNET2D), dtype_of(dtype))
        made = replace(made, unet=unet, scheduler={**made.scheduler, **NOISE})
        modules = {"unet": made.unet, "vae": made.vae, "text_encoder": made.text_encoder}
        name = identity.of_modules(modules, {"scheduler": made.scheduler, "tokens": max_tokens})
        return cls(placed(made, device), name=name)

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], parts: Mapping[str, Tensor], call: Call
    ) -> Float[Tensor, "s lf c lh lw"]:
        streams, frames = x.shape[:2]
        # One layout in memory, whoever calls: kernels round differently for others.
        maps = rearrange(self._with_channels(x, parts), "s f c h w -> (s f) c h w").contiguous()
        text = in_frames(parts["text"], frames)
        out = self.unet(maps, self.noise_path.told(call.t), text, return_dict=False)[0]
        return rearrange(out, "(s f) c h w -> s f c h w", s=streams)
