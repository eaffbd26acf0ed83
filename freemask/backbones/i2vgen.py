"""Image-to-video networks of diffusers' I2VGenXLUNet: a text, and a picture that the first frame is to look like."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call
from freemask.backbones import identity, tiny, weightless
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.given import must_be
from freemask.backbones.network import GUIDANCE, device_of, dtype_of, of_prompts, wide
from freemask.backbones.parts import sides
from freemask.backbones.pictures import ImageReader
from freemask.backbones.text import TextReader
from freemask.backbones.unet import COMPONENTS, Loaded, UNet, load, placed
from freemask.backbones.weightless import Weights
from freemask.settings import Effect
from freemask.types import Clip, Given, NoisePath

KIND = "I2VGenXLUNet"
TAKES = {
    "text": "l d",
    "image": "d: what an image encoder says of the picture; zeros where nothing is to be said",
    "image_latents": "c lh lw: the latent of the picture",
    "fps": "a number: frames in a second",
}


class I2VGen(UNet):
    """An I2VGenXLUNet with its autoencoder and text encoder, behind one door, and an image encoder where it has one.

    Its text layers read the text first, then the picture's latent and embedding: words have the columns of their text.
    """

    def __init__(
        self,
        parts: Loaded,
        *,
        name: str,
        attention_slicing: int = 0,
        seeing: ImageReader | None = None,
    ) -> None:
        super().__init__(parts, name=name, attention_slicing=attention_slicing, takes=TAKES)
        self.seeing = seeing

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES],
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        text_skip: int = 1,
        scheduler: Mapping[str, Any] | None = None,
        native: Sequence[int] | None = None,
        weights: Annotated[Weights | None, Effect.SAID] = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = GUIDANCE,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_slicing: Annotated[bool, Effect.NONE] = False,
        vae_tiling: bool = False,
        vae_batch: Annotated[int, Effect.NONE] = 8,
    ) -> "I2VGen":
        """`path` is a folder in diffusers layout, or a hub id. `text_skip`: so many of the text encoder's last layers
        are left out. `scheduler`: what its file is known to say; another content is warned of. `native`: height and
        width that clips are brought to. The rest as for UNet3D."""
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        vae = {"batch": vae_batch, "slicing": vae_slicing, "tiling": vae_tiling}
        parts = load(files, KIND, device=device, dtype=dtype, vae=vae)
        reader = TextReader(parts.reader.tokenizer, parts.reader.encoder, skip=text_skip)
        path_ = as_known(parts.noise_path, files.scheduler(), scheduler or {})
        seeing = ImageReader.of(files, wide(dtype_of(dtype)), parts.unet.device)
        made = cls(
            parts._replace(reader=reader, noise_path=path_),
            name=_name(files, text_skip),
            attention_slicing=attention_slicing,
            seeing=seeing,
        )
        made.guidance = of_prompts(guidance)
        if native is not None:
            height, width = sides("native", native, 2)
            made.native = (height, width)
        return made

    @classmethod
    def identify(
        cls,
        path: str | Path,
        *,
        text_skip: int = 1,
        weights: Weights | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
    ) -> str:
        """The identity of what `load` would make, from the files alone."""
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        return _name(files, text_skip)

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        prediction: str = "v_prediction",
        max_tokens: int = 77,
    ) -> "I2VGen":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made = tiny.parts(seed, dtype_of(dtype), prediction, max_tokens, animated=True)
        names = ("unet", "vae", "text_encoder", "image_encoder")
        name = identity.of_modules(
            {each: getattr(made, each) for each in names}, {"scheduler": made.scheduler, "tokens": max_tokens}
        )
        seeing = ImageReader(made.image_encoder.to(device_of(device)), tiny.SEEN)
        return cls(placed(made, device), name=name, seeing=seeing)

    def seen(self, clip: Clip) -> dict[str, Tensor]:
        """Its first frame. Zeros are what it was trained to be told where nothing is said of a picture."""
        frame = clip.frames[0]
        latents = self.codec.encode(frame[None])[0]
        width = self.unet.config.cross_attention_dim
        image = latents.new_zeros(width) if self.seeing is None else self.seeing(frame)
        return {"image": image, "image_latents": latents, "fps": torch.tensor(clip.fps)}

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


def as_known(path: NoisePath, found: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """The noise path as the scheduler's file has it, with a warning where it is known to say something else."""
    other = [
        f"{key} {found.get(key)} (known: {value})" for key, value in known.items() if found.get(key) != value
    ]
    if not other:
        return path
    made: Any = path
    said = f"the scheduler's file does not say what is known of this model: {', '.join(other)}; the file is followed"
    return replace(made, warnings=(*made.warnings, said))


def _name(files: Checkpoint, text_skip: int) -> str:
    name = files.identity(COMPONENTS)
    return (
        name if text_skip == 1 else files.marked(identity.of_facts({"files": name, "text_skip": text_skip}))
    )
