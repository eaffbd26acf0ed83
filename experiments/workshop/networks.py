"""The embedded networks, not yet taught, and how they are written. Their shapes, the noise schedule and the layout are
those of the folder that ships: to change one, change its file below freemask/weights."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.workshop.tokenizer import write_tokenizer
from freemask.backbones.checkpoint import WEIGHTS_FOLDER as SHIPPED

SHOWN = 8  # frames of a clip, among which attention divides the picture
LOUD = 5  # times as large: the first layer, which reads the picture, learns slowly


def text_encoder(vocabulary: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_pretrained(SHIPPED / "t2i/text_encoder")
    config.vocab_size, config.bos_token_id, config.eos_token_id = vocabulary, vocabulary - 2, vocabulary - 1
    return CLIPTextModel(config)


def unet2d(channels: int) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return _fresh(UNet2DConditionModel, "t2i/unet", in_channels=channels, out_channels=channels)


def unet3d(channels: int) -> Any:
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    return _fresh(UNet3DConditionModel, "t2v/unet", in_channels=channels, out_channels=channels)


def picture_unet(channels: int) -> Any:
    """The video network that is shown a picture too."""
    from freemask.backbones.i2vgen_unet import I2VGenXLUNet

    return _fresh(I2VGenXLUNet, "i2v/unet", in_channels=channels, out_channels=channels)


def transformer(channels: int, blocks: int) -> Any:
    """A video transformer built like Wan. It begins with a velocity of zero."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    sizes = {"in_channels": channels, "out_channels": channels, "num_layers": blocks}
    made = _fresh(WanTransformer3DModel, "dit/transformer", **sizes)
    nn.init.zeros_(made.proj_out.weight)
    nn.init.zeros_(made.proj_out.bias)
    return made


def autoencoder(channels: int, width: int = 64, blocks: int = 3) -> Any:
    """Its encoder can be exactly linear, its decoder is to be learned."""
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

    decoder = {"decoder_block_out_channels": (8, 32, width), "decoder_layers_per_block": (0, 1, blocks)}
    return _fresh(AutoencoderDC, "t2i/vae", latent_channels=channels, **decoder)


def _fresh(kind: Any, folder: str, **changed: Any) -> Any:
    return kind.from_config(kind.load_config(SHIPPED / folder), **changed)


def grow(flat: Any, video: Any) -> list[str]:
    """Copy the image network into the video network and zero what the new temporal layers add.

    At the start the video network then equals the image network frame by frame. Returns the names of the new
    parameters (temporal ones), which the caller may train at another rate.
    """
    missing, unexpected = video.load_state_dict(flat.state_dict(), strict=False)
    if unexpected:
        raise ValueError(f"the video network has no place for {unexpected[:3]}")
    for name, module in video.named_modules():
        last_of_conv = "temp_convs" in name and name.endswith("conv4.3")
        in_attention = "temp_attentions" in name or "transformer_in" in name
        if last_of_conv or (in_attention and name.endswith("proj_out")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return list(missing)


@torch.no_grad()
def grow_eyes(video: Any, made: Any, nothing: Tensor) -> list[str]:
    """Copy the text-to-video network into the image-to-video network.

    At the start it equals the text-to-video network, shown a text that is longer by as many columns `nothing` as the
    picture takes. Returns the names of the parameters that are new, `conv_in` with them: half of it is.
    """
    state = video.state_dict()
    old = state["conv_in.weight"]
    missing, unexpected = made.load_state_dict(
        state | {"conv_in.weight": torch.cat([old, torch.zeros_like(old)], 1)}, strict=False
    )
    if unexpected:
        raise ValueError(f"the image-to-video network has no place for {unexpected[:3]}")
    _hand_on(made.image_latents_proj_in)
    _show_all_frames(made.image_latents_temporal_encoder)
    columns = made.image_latents_context_embedding[-1]
    for last in (columns, made.fps_embedding[-1]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    nn.init.zeros_(made.context_embedding[-1].weight)
    columns.bias.copy_(nothing)
    made.context_embedding[-1].bias.copy_(nothing.repeat(made.config.in_channels))
    return [*missing, "conv_in.weight"]


def _hand_on(layers: Any) -> None:
    """Three convolutions with SiLU between them that hand latents on, enlarged: silu(x) - silu(-x) = x."""
    channels = layers[0].in_channels
    pairs = torch.eye(channels).repeat_interleave(2, 0) * torch.tensor([1.0, -1.0]).repeat(channels)[:, None]
    for layer, matrix in zip(layers[::2], (pairs, pairs @ pairs.T, LOUD * pairs.T), strict=True):
        rows, columns = matrix.shape
        layer.weight[:rows], layer.bias[:rows] = 0, 0
        layer.weight[:rows, :columns, 1, 1] = matrix


def _show_all_frames(encoder: Any) -> None:
    """An encoder along frames that shows each frame the picture, beside what it was given. Its attention is even among
    frames where queries are nothing, and what stands at all frames but the first is the same in all channels: to the
    norm before attention, nothing."""
    attention, channels = encoder.attn1, encoder.attn1.to_v.in_features
    for layer in (attention.to_q, attention.to_v, attention.to_out[0], encoder.ff.net[-1]):
        nn.init.zeros_(layer.weight)
    for layer in (attention.to_out[0], encoder.ff.net[-1]):
        nn.init.zeros_(layer.bias)
    attention.to_v.weight[:channels] = torch.eye(channels)
    attention.to_out[0].weight[:, :channels] = SHOWN * LOUD * torch.eye(channels)


def write_pipeline(folder: Path, kind: str, **parts: Any) -> None:
    """The directory in diffusers layout; `kind`: 't2i', 't2v', 'i2v', 'dit'. The parts are left in half precision."""
    for name, module in parts.items():
        module.half().save_pretrained(folder / name)
    write_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir(exist_ok=True)
    for name in ("scheduler/scheduler_config.json", "model_index.json"):
        (folder / name).write_text((SHIPPED / kind / name).read_text())


def clip_config(vocabulary: int) -> dict[str, Any]:
    """What open_clip reads of the small CLIP's shape and of the pictures that it takes."""
    config = json.loads((SHIPPED / "clip/open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["vocab_size"] = vocabulary
    return config
