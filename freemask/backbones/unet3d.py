"""Text-to-video networks of diffusers' UNet3DConditionModel: Zeroscope, ModelScope, and the embedded one."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call, Slot
from freemask.backbones import checkpoint, identity, sites, tiny
from freemask.backbones.codec import Codec
from freemask.backbones.text import TextReader
from freemask.diffusion.noise_paths import Ddim
from freemask.errors import UserError, nearest
from freemask.types import NO_TAPS, Backbone, Site, Stream, Taps, Text

COMPONENTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
VAES = ("AutoencoderKL", "AutoencoderDC")
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class UNet3D(Backbone):
    """A UNet3DConditionModel with its autoencoder and text encoder, behind one door.

    The UNet runs in `dtype`; text, autoencoder and latents stay in single precision (double for float64).
    """

    def __init__(
        self,
        unet: Any,
        codec: Codec,
        reader: TextReader,
        noise_path: Ddim,
        *,
        name: str,
        attention_slicing: int = 0,
    ) -> None:
        if attention_slicing < 0:
            raise UserError(
                "attention_slicing is a number of batch rows.", came=attention_slicing, expected="0 = off"
            )
        self.unet = unet.eval().requires_grad_(False)
        self.codec, self.reader, self.noise_path = codec, reader, noise_path
        self.identity, self.attention_slicing = name, attention_slicing
        self.device, self.dtype = unet.device, unet.dtype
        self.multiple, self.max_tokens = codec.multiple, reader.max_tokens
        self.native = _native(unet, codec)
        self._slot = Slot()
        found, features = sites.attention_sites(unet), sites.feature_sites(unet)
        sites.install(unet, found, features, self._slot)
        self.sites: Mapping[str, Site] = MappingProxyType(found)
        self.features: Mapping[str, Site] = MappingProxyType(features)

    @classmethod
    def load(  # noqa: PLR0913 -- this signature is the schema that users fill in
        cls,
        path: str | Path = "embedded",
        device: str = "cpu",
        dtype: str = "float32",
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
        attention_slicing: int = 0,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        vae_batch: int = 8,
    ) -> "UNet3D":
        """`path` is 'embedded', a folder in diffusers layout, or a hub id. Nothing is downloaded for the first two.

        To save memory: `attention_slicing` rows of the attention batch at once (0 = all), `vae_batch` frames at
        once, `vae_slicing` and `vae_tiling` as in diffusers (tiling changes pixels a little at the seams).
        """
        place, kind = _device(device), _dtype(dtype)
        files = checkpoint.find(
            path, revision=revision, local_files_only=local_files_only, allow_pickle=allow_pickle
        )
        path_of_noise = Ddim.from_config(files.scheduler())
        unet = files.part("unet", ("UNet3DConditionModel",), kind).to(place)
        vae = files.part("vae", VAES, _wide(kind)).to(place)
        encoder = files.part("text_encoder", ("CLIPTextModel",), _wide(kind)).to(place)
        return cls(
            unet,
            Codec(vae, batch=vae_batch, slicing=vae_slicing, tiling=vae_tiling),
            TextReader(files.tokenizer(), encoder),
            path_of_noise,
            name=identity.of_folder(files.folder, COMPONENTS),
            attention_slicing=attention_slicing,
        )

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        prediction: str = "epsilon",
        max_tokens: int = 77,
    ) -> "UNet3D":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made = tiny.parts(seed, _dtype(dtype), prediction, max_tokens)
        modules = {"unet": made.unet, "vae": made.vae, "text_encoder": made.text_encoder}
        name = identity.of_modules(modules, {"scheduler": made.scheduler, "tokens": max_tokens})
        place = _device(device)
        return cls(
            made.unet.to(place),
            Codec(made.vae.to(place), batch=8),
            TextReader(made.tokenizer, made.text_encoder.to(place)),
            Ddim.from_config(made.scheduler),
            name=name,
        )

    def encode(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "lf c lh lw"]:
        return self.codec.encode(frames)

    def decode(self, latents: Float[Tensor, "lf c lh lw"]) -> Float[Tensor, "f 3 h w"]:
        return self.codec.decode(latents)

    def embed(self, prompt: str) -> Text:
        return self.reader(prompt)

    def predict(
        self,
        x: Float[Tensor, "s lf c lh lw"],
        t: int,
        text: Float[Tensor, "s l d"],
        *,
        streams: tuple[Stream, ...],
        taps: Taps = NO_TAPS,
    ) -> Float[Tensor, "s lf c lh lw"]:
        if len(streams) != len(x) or len(set(streams)) < len(streams):
            raise ValueError(f"a stack of {len(x)} needs as many different stream names, not {streams}")
        call = Call(t, streams, frames=x.shape[1], taps=taps, rows=self.attention_slicing)
        # One layout in memory, whoever calls: kernels round differently for others.
        maps = rearrange(x, "s f c h w -> s c f h w").to(self.device, self.dtype).contiguous()
        with self._slot.opened(call):
            out = self.unet(maps, t, text.to(self.device, self.dtype), return_dict=False)[0]
        return rearrange(out, "s c f h w -> s f c h w").to(x.device, x.dtype).contiguous()

    def describe(self) -> dict[str, Any]:
        kinds = [site.kind for site in self.sites.values()]
        path: Any = self.noise_path
        return {
            "identity": self.identity,
            "parameters": sum(weight.numel() for weight in self.unet.parameters()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "native": f"{self.native[0]}x{self.native[1]}",
            "multiple": self.multiple,
            "max_tokens": self.max_tokens,
            "sites": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            "prediction": path.prediction,
            "warnings": list(path.warnings),
        }


def _native(unet: Any, codec: Codec) -> tuple[int, int]:
    """Height and width in pixels that the network was trained on, by its config."""
    size = unet.config.sample_size or 32
    height, width = (size, size) if isinstance(size, int) else size
    return height * codec.multiple, width * codec.multiple


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UserError("Unknown dtype.", came=name, expected=", ".join(DTYPES), todo=nearest(name, DTYPES))
    return DTYPES[name]


def _device(name: str) -> torch.device:
    """'auto' takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError("Unknown device.", came=name, expected="cpu, cuda, cuda:0 or auto") from error
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            "There is no such GPU.", came=name, expected=f"{count} GPUs are visible", todo="use device=cpu"
        )
    return device
