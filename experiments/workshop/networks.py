"""The embedded networks, not yet taught, and how they are written. Their shapes, the noise schedule and the layout are
those of the folder that ships: to change one, change its file below freemask/weights."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from experiments.workshop.tokenizer import write_tokenizer
from freemask.backbones.checkpoint import WEIGHTS_FOLDER as SHIPPED


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


def write_pipeline(folder: Path, kind: str, **parts: Any) -> None:
    """The directory that diffusers reads; `kind` is 't2i', 't2v' or 'dit'. The parts are left in half precision."""
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
