"""What the U-Net backbones share: how a checkpoint is read, and where taps sit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import gated, sites, tiny
from freemask.backbones.checkpoint import COMPONENTS as COMPONENTS
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.codec import Codec
from freemask.backbones.given import must_be, text_must_be
from freemask.backbones.network import TEXT, Network, device_of, dtype_of, wide
from freemask.backbones.text import TextReader
from freemask.diffusion.scheduler import noise_path
from freemask.types import Given, NoisePath

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
    unet = files.part("unet", (kind,), precision, place)
    autoencoder = files.part("vae", VAES, wide(precision), place)
    encoder = files.part("text_encoder", ("CLIPTextModel",), wide(precision), place)
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
        self.more = int(unet.config.in_channels) - int(unet.config.out_channels)
        super().__init__(
            *parts,
            slot=slot,
            sites=found,
            features=features,
            takes={"text": TEXT, **({"channels": CHANNELS} if self.more > 0 else {}), **takes},
            name=name,
            attention_slicing=attention_slicing,
        )
        self.unet = unet
        self.native = _native(unet, parts.codec)
        sites.install(unet, found, features, slot, gated.install(unet, look, slot))

    def _completed(self, given: Given, x: Float[Tensor, "lf c lh lw"]) -> Given:
        """Input channels that are one for all frames are repeated."""
        text, channels = given.parts.get("text"), given.parts.get("channels")
        if text is not None:
            text_must_be("text", text, self.unet.config.cross_attention_dim, len(x))
        if channels is None or not self.more:
            return given
        size = (self.more, *x.shape[-2:])
        must_be("channels", channels, "frames, channels, height, width", (len(x), *size), (1, *size))
        return given.plus(channels=channels.expand(len(x), *size))

    def _with_channels(self, x: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        """The latents, and the channels that a stream is given beside them."""
        return torch.cat([x, parts["channels"]], dim=2) if "channels" in parts else x


def _native(unet: Any, codec: Codec) -> tuple[int, int]:
    """Height and width in pixels that the network was trained on, by its config."""
    size = unet.config.sample_size or 32
    height, width = (size, size) if isinstance(size, int) else size
    return height * codec.multiple, width * codec.multiple
