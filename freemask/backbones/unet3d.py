"""Text-to-video networks of diffusers' UNet3DConditionModel: Zeroscope, ModelScope, and the embedded one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call
from freemask.backbones import identity, tiny, weightless
from freemask.backbones.network import GUIDANCE, dtype_of, of_prompts
from freemask.backbones.unet import COMPONENTS, UNet, load, placed
from freemask.backbones.weightless import Weights
from freemask.settings import Effect


class UNet3D(UNet):
    """A UNet3DConditionModel with its autoencoder and text encoder, behind one door.

    The UNet runs in `dtype`; text, autoencoder and latents stay in single precision (double for float64).
    """

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: Annotated[str | Path, Effect.FILES] = "embedded",
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        *,
        weights: Annotated[Weights | None, Effect.SAID] = None,
        revision: str | None = None,
        local_files_only: Annotated[bool, Effect.NONE] = False,
        allow_pickle: Annotated[bool, Effect.NONE] = False,
        guidance: float | int = GUIDANCE,
        attention_slicing: Annotated[int, Effect.NONE] = 0,
        vae_slicing: Annotated[bool, Effect.NONE] = False,
        vae_tiling: bool = False,
        vae_batch: Annotated[int, Effect.NONE] = 8,
    ) -> "UNet3D":
        """`path` is 'embedded', a folder in diffusers layout, or a hub id. Nothing is downloaded for the first two, nor
        where `weights` are random: then the published shape of a hub id is filled with seeded numbers, which cost what
        the real ones cost and show nothing.

        To save memory: `attention_slicing` rows of the attention batch at once (0 = all), `vae_batch` frames at
        once, `vae_slicing` and `vae_tiling` as in diffusers (tiling changes pixels a little at the seams).
        """
        files = weightless.find(path, weights, revision, local_files_only, allow_pickle)
        vae = {"batch": vae_batch, "slicing": vae_slicing, "tiling": vae_tiling}
        parts = load(files, "UNet3DConditionModel", device=device, dtype=dtype, vae=vae)
        name = files.identity(COMPONENTS)
        made = cls(parts, name=name, attention_slicing=attention_slicing)
        made.guidance = of_prompts(guidance)
        return made

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        prediction: str = "epsilon",
        max_tokens: int = 77,
    ) -> "UNet3D":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made = tiny.parts(seed, dtype_of(dtype), prediction, max_tokens)
        modules = {"unet": made.unet, "vae": made.vae, "text_encoder": made.text_encoder}
        name = identity.of_modules(modules, {"scheduler": made.scheduler, "tokens": max_tokens})
        return cls(placed(made, device), name=name)

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], parts: Mapping[str, Tensor], call: Call
    ) -> Float[Tensor, "s lf c lh lw"]:
        # One layout in memory, whoever calls: kernels round differently for others.
        maps = rearrange(self._with_channels(x, parts), "s f c h w -> s c f h w").contiguous()
        text = parts["text"]
        if text.ndim == 4:  # the network repeats one text for all frames: the layers get theirs past it
            call.text = rearrange(text, "s f l d -> (s f) l d")
            text = text[:, 0]
        out = self.unet(maps, self.noise_path.told(call.t), text, return_dict=False)[0]
        return rearrange(out, "s c f h w -> s f c h w")
