"""Text-to-video transformers of diffusers' HunyuanVideo15Transformer3DModel: HunyuanVideo 1.5 (8B)."""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from freemask.attention.processor import Slot
from freemask.backbones import hunyuan_attention, identity, tiny_hunyuan15
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.hunyuan_text import Hunyuan15Reader, Pair
from freemask.backbones.network import device_of, dtype_of
from freemask.backbones.parts import Parts, refuse_more
from freemask.backbones.transformer import VideoTransformer
from freemask.diffusion.flow import Flow
from freemask.errors import UserError
from freemask.settings import Effect
from freemask.types import Given, Site


class Hunyuan15(VideoTransformer):
    """A HunyuanVideo15Transformer3DModel with its autoencoder and language model, behind one door.

    The network sorts what it is told: words first, then what is masked. So words keep their columns, as long as there
    are no letters to draw and no picture; each of these is one masked column here instead of hundreds.
    """

    networks = ("HunyuanVideo15Transformer3DModel",)
    vaes = ("AutoencoderKLHunyuanVideo15",)
    native_size = (480, 848)
    text_columns = 1000
    own_grid = "even"
    conditions = {**VideoTransformer.conditions, "mask": "l, 1 where the text has a column"}

    @staticmethod
    def attention(network: Any, slot: Slot) -> Mapping[str, Site]:
        _check(network)
        return hunyuan_attention.install(network, slot)

    @classmethod
    def reader_of(
        cls, files: Checkpoint, *, device: torch.device, dtype: torch.dtype, max_tokens: int
    ) -> Hunyuan15Reader:
        encoder = files.part("text_encoder", ("Qwen2_5_VLTextModel",), dtype, device)
        return Hunyuan15Reader(Pair(files.tokenizer(as_filed=True), encoder), max_tokens)

    @classmethod
    def random(
        cls,
        seed: int = 0,
        *,
        device: Annotated[str, Effect.NONE] = "cpu",
        dtype: str = "float32",
        max_tokens: int = 48,
    ) -> "Hunyuan15":
        """A tiny network with random weights: no files, no meaning, every code path."""
        made, place = tiny_hunyuan15.parts(seed, dtype_of(dtype), max_tokens), device_of(device)
        modules = {"transformer": made.transformer, "vae": made.vae, "text": made.language.encoder}
        codec = cls.codec_of(made.vae.to(place), patch=made.transformer.config.patch_size)
        reader = Hunyuan15Reader(made.language, max_tokens)
        reader.to(place)
        return cls(
            Parts(made.transformer.to(place), codec, reader, Flow(shift=7.0, grid="even")),
            name=identity.of_modules(modules, {"tokens": max_tokens}),
            native=(32, 32),
        )

    def _completed(self, given: Given, x: Float[Tensor, "lf c lh lw"]) -> Given:
        if "text" in given.parts and given.parts["text"].shape[-2] <= Hunyuan15Reader.spare:
            raise UserError("This model needs a text.", came=tuple(given.parts["text"].shape))
        return given

    def _call(
        self, x: Float[Tensor, "s lf c lh lw"], told: Float[Tensor, " s"], parts: Mapping[str, Tensor]
    ) -> Float[Tensor, "s lf c lh lw"]:
        """Behind the clip lie the latents of a picture, of which there is none, and a mask that says so."""
        config: Any = self.network.config
        maps = rearrange(x, "s f c h w -> s c f h w")
        nothing = maps.new_zeros(len(x), maps.shape[1] + 1, *maps.shape[2:])
        words = slice(0, -Hunyuan15Reader.spare)
        out = self.network(
            torch.cat([maps, nothing], dim=1),
            told.to(x.dtype),
            parts["text"][:, words],
            parts["mask"][:, words],
            encoder_hidden_states_2=maps.new_zeros(len(x), 1, config.text_embed_2_dim),
            encoder_attention_mask_2=maps.new_zeros(len(x), 1),
            image_embeds=maps.new_zeros(len(x), 1, config.image_embed_dim),
            return_dict=False,
        )[0]
        return rearrange(out, "s c f h w -> s f c h w")


def _check(network: Any) -> None:
    config = network.config
    strange = {
        f"made for another task ({config.task_type})": config.task_type != "t2v",
        "a second time (use_meanflow)": config.use_meanflow,
        f"{config.in_channels} channels in, {config.out_channels} out": config.in_channels
        != 2 * config.out_channels + 1,
    }
    refuse_more(strange, "HunyuanVideo-1.5 (t2v): a noisy clip, a time and a text")
