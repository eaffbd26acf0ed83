"""What all U-Net backbones share: how a checkpoint is read, and the door between a network and its taps."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Call, Slot
from freemask.backbones import sites, tiny
from freemask.backbones.checkpoint import Checkpoint
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


class Loaded(NamedTuple):
    """The parts of a checkpoint, on their device. The UNet is in the wanted dtype; text and autoencoder stay in
    single precision (double for float64)."""

    unet: Any
    codec: Codec
    reader: TextReader
    noise_path: Ddim


def load(files: Checkpoint, kind: str, *, device: str, dtype: str, vae: Mapping[str, Any]) -> Loaded:
    """`kind` is the class of the UNet; `vae` the options of the codec."""
    place, precision = device_of(device), dtype_of(dtype)
    noise_path = Ddim.from_config(files.scheduler())
    unet = files.part("unet", (kind,), precision).to(place)
    autoencoder = files.part("vae", VAES, wide(precision)).to(place)
    encoder = files.part("text_encoder", ("CLIPTextModel",), wide(precision)).to(place)
    return Loaded(unet, Codec(autoencoder, **vae), TextReader(files.tokenizer(), encoder), noise_path)


def placed(made: tiny.Parts, device: str) -> Loaded:
    """The same of parts that were made in memory."""
    place = device_of(device)
    reader = TextReader(made.tokenizer, made.text_encoder.to(place))
    codec = Codec(made.vae.to(place), batch=8)
    return Loaded(made.unet.to(place), codec, reader, Ddim.from_config(made.scheduler))


class UNet(Backbone):
    """A UNet of diffusers with its autoencoder and text encoder, behind one door."""

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
        with self._slot.opened(call):
            out = self._run(x.to(self.device, self.dtype), t, text.to(self.device, self.dtype))
        return out.to(x.device, x.dtype).contiguous()

    def _run(
        self, x: Float[Tensor, "s lf c lh lw"], t: int, text: Float[Tensor, "s l d"]
    ) -> Float[Tensor, "s lf c lh lw"]:
        """The network itself, in its own layout."""
        raise NotImplementedError

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


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def dtype_of(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UserError("Unknown dtype.", came=name, expected=", ".join(DTYPES), todo=nearest(name, DTYPES))
    return DTYPES[name]


def device_of(name: str) -> torch.device:
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
