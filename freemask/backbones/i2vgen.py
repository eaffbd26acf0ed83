"""Image-to-video networks of diffusers' I2VGenXLUNet: a text, and a picture that the first frame is to look like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call
from freemask.backbones import checkpoint, identity
from freemask.backbones.given import must_be
from freemask.backbones.network import GUIDANCE, of_prompts
from freemask.backbones.text import TextReader
from freemask.backbones.unet import COMPONENTS, Loaded, UNet, load
from freemask.settings import Effect
from freemask.types import Given

TAKES = {
    "text": "l d",
    "image": "d: what an image encoder says of the picture; zeros where nothing is to be said",
    "image_latents": "c lh lw: the latent of the picture",
    "fps": "a number: frames in a second",
}


class I2VGen(UNet):
    """An I2VGenXLUNet with its autoencoder and text encoder, behind one door.

    Its text layers read the text first, then the picture's latent and embedding: words have the columns of their text.
    """

    def __init__(self, parts: Loaded, *, name: str, attention_slicing: int = 0) -> None:
        super().__init__(parts, name=name, attention_slicing=attention_slicing, takes=TAKES)

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES],
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = GUIDANCE,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_slicing: Annotated[bool, Effect.NONE] = False,
        vae_tiling: bool = False,
        vae_batch: Annotated[int, Effect.NONE] = 8,
    ) -> "I2VGen":
        """`path` is a folder in diffusers layout, or a hub id. The rest as for UNet3D."""
        files = checkpoint.find(
            path, revision=revision, local_files_only=local_files_only, allow_pickle=allow_pickle
        )
        vae = {"batch": vae_batch, "slicing": vae_slicing, "tiling": vae_tiling}
        parts = load(files, "I2VGenXLUNet", device=device, dtype=dtype, vae=vae)
        # The network was trained on the text encoder's last layer but one.
        reader = TextReader(parts.reader.tokenizer, parts.reader.encoder, skip=1)
        name = identity.of_folder(files.folder, COMPONENTS)
        made = cls(parts._replace(reader=reader), name=name, attention_slicing=attention_slicing)
        made.guidance = of_prompts(guidance)
        return made

    def _completed(self, given: Given, x: Float[Tensor, "lf c lh lw"]) -> Given:
        width = self.unet.config.cross_attention_dim
        shapes = {
            "text": ("tokens, width", (None, width)),
            "image": ("width", (width,)),
            "image_latents": ("channels, height, width", tuple(x.shape[1:])),
            "fps": ("a number", ()),
        }
        for name, (axes, shape) in shapes.items():
            if name in given.parts:
                must_be(name, given.parts[name], axes, shape)
        return given

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], parts: Mapping[str, Tensor], call: Call
    ) -> Float[Tensor, "s lf c lh lw"]:
        # One layout in memory, whoever calls: kernels round differently for others.
        maps = rearrange(x, "s f c h w -> s c f h w").contiguous()
        out = self.unet(
            maps,
            self.noise_path.told(call.t),
            parts["fps"],
            along(parts["image_latents"], x.shape[1]),
            parts["image"][:, None],
            encoder_hidden_states=parts["text"],
            return_dict=False,
        )[0]
        return rearrange(out, "s c f h w -> s f c h w")


def along(picture: Float[Tensor, "s c h w"], frames: int) -> Float[Tensor, "s c f h w"]:
    """The picture at the first frame; at the others, how far through the clip they are."""
    places = [torch.full_like(picture, frame / (frames - 1)) for frame in range(1, frames)]
    return torch.stack([picture, *places], dim=2)
