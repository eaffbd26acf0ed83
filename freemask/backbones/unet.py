"""What the U-Net backbones share: how a checkpoint is read, and where taps sit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import sites, tiny
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import Codec
from freemask.backbones.network import TEXT, Network, device_of, dtype_of, wide
from freemask.backbones.text import TextReader
from freemask.diffusion.scheduler import noise_path
from freemask.types import NoisePath

COMPONENTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
VAES = ("AutoencoderKL", "AutoencoderDC")
CHANNELS = "f c lh lw, or 1 c lh lw for all frames: the input channels beside the noisy ones"


class Loaded(NamedTuple):
    """The parts of a checkpoint, on their device. The UNet is in the wanted dtype; text and autoencoder stay in
    single precision (double for float64)."""

    unet: Any
    codec: Codec
    reader: TextReader
    noise_path: NoisePath


def load(files: Checkpoint, kind: str, *, device: str, dtype: str, vae: Mapping[str, Any]) -> Loaded:
    """`kind` is the class of the UNet; `vae` the options of the codec."""
    place, precision = device_of(device), dtype_of(dtype)
    path = noise_path(files.scheduler())
    unet = files.part("unet", (kind,), precision).to(place)
    autoencoder = files.part("vae", VAES, wide(precision)).to(place)
    encoder = files.part("text_encoder", ("CLIPTextModel",), wide(precision)).to(place)
    return Loaded(unet, Codec(autoencoder, **vae), TextReader(files.tokenizer(), encoder), path)


def placed(made: tiny.Parts, device: str) -> Loaded:
    """The same of parts that were made in memory."""
    place = device_of(device)
    reader = TextReader(made.tokenizer, made.text_encoder.to(place))
    codec = Codec(made.vae.to(place), batch=8)
    return Loaded(made.unet.to(place), codec, reader, noise_path(made.scheduler))


class UNet(Network):
    """A UNet of diffusers with its autoencoder and text encoder, behind one door."""

    def __init__(
        self,
        parts: Loaded,
        *,
        name: str,
        attention_slicing: int = 0,
        look: sites.Look = sites.alone,
        takes: Mapping[str, str] = {},
    ) -> None:
        """`look` says of a self-attention whom its frames look at; `takes` what the family takes beside a text and
        the input channels that the network has too many."""
        unet, slot = parts.unet, Slot()
        found, features = sites.attention_sites(unet, look), sites.feature_sites(unet)
        more = int(unet.config.in_channels) - int(unet.config.out_channels)
        super().__init__(
            *parts,
            slot=slot,
            sites=found,
            features=features,
            takes={"text": TEXT, **({"channels": CHANNELS} if more > 0 else {}), **takes},
            name=name,
            attention_slicing=attention_slicing,
        )
        self.unet = unet
        self.native = _native(unet, parts.codec)
        sites.install(unet, found, features, slot)

    def _with_channels(self, x: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        """The latents, and the channels that a stream is given beside them."""
        more = parts.get("channels")
        if more is None:
            return x
        return torch.cat([x, more.expand(*x.shape[:2], *more.shape[2:])], dim=2)


def _native(unet: Any, codec: Codec) -> tuple[int, int]:
    """Height and width in pixels that the network was trained on, by its config."""
    size = unet.config.sample_size or 32
    height, width = (size, size) if isinstance(size, int) else size
    return height * codec.multiple, width * codec.multiple
