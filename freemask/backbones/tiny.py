"""Tiny networks with random weights and a tokenizer made on the fly: for tests and dry runs."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789!,.'-éã©"
WORDS = ("the", "red", "blue", "car", "grass")

UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 8,
}
# diffusers means the number of heads here, where it means their width in the video network.
UNET2D: dict[str, Any] = {**UNET, "attention_head_dim": 2}
VAE: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "scaling_factor": 0.5,
}
LATENT = 4  # channels of latents
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "image_size": 16, "patch_size": 8, "projection_dim": 16}
SEEN = {
    "crop_size": 16,
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
}  # what such an image encoder is shown


@dataclass(frozen=True)
class Parts:
    """What a checkpoint of this kind consists of."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: dict[str, Any]
    image_encoder: Any = None


def parts(  # noqa: PLR0913 -- what there is to choose
    seed: int,
    dtype: torch.dtype,
    prediction: str,
    max_tokens: int,
    *,
    image: bool = False,
    animated: bool = False,
    more: int = 0,
) -> Parts:
    """Four levels and sixteen text layers like Zeroscope (`image`: like Stable Diffusion, `animated`: like I2VGen-XL,
    with an image encoder), as narrow as can be; latents at half the pixel size. `more`: input channels beside them."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
    from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
    from transformers import CLIPTextConfig, CLIPTextModel

    reader = tokenizer(max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = I2VGenXLUNet if animated else UNet2DConditionModel if image else UNet3DConditionModel
        unet = kind(**(UNET2D if image or animated else UNET), in_channels=LATENT + more)
        vae = AutoencoderKL(**VAE)
        marks = {f"{mark}_token_id": getattr(reader, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
        size = {"vocab_size": len(reader), "max_position_embeddings": max_tokens}
        encoder = CLIPTextModel(CLIPTextConfig(**TEXT, **size, **marks))
        seeing = _image_encoder() if animated else None
        # Zero at birth, these would hide the temporal layers.
        for name, weight in unet.named_parameters():
            if name.endswith("conv4.3.weight"):
                torch.nn.init.normal_(weight, std=0.05)
    wide = dtype if dtype == torch.float64 else torch.float32
    to = torch.nn.Module.to  # the one of diffusers warns about casts
    seeing = None if seeing is None else to(seeing, wide)
    return Parts(to(unet, dtype), to(vae, wide), to(encoder, wide), reader, _scheduler(prediction), seeing)


def _image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(VISION))


def control_nets(unet: Any, seed: int, count: int) -> list[Any]:
    """ControlNets that fit a tiny image network, and are no copies of it: their zero convolutions are random too."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    made = []
    for place in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1 + place)
            net = ControlNetModel.from_unet(
                unet, conditioning_embedding_out_channels=(8, 8), load_weights_from_unet=False
            )
            for weight in net.parameters():
                if not weight.any() and weight.ndim > 1:
                    torch.nn.init.normal_(weight, std=0.2)
        made.append(torch.nn.Module.to(net, unet.dtype))
    return made


def gated_layers(unet: Any, seed: int) -> dict[str, Any]:
    """Gated layers that fit a tiny image network, and change what it does."""
    from freemask.backbones.gated_weights import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        made = build(unet)
        for layer in made.values():
            for weight in layer.parameters():
                if weight.ndim > 1 and not weight.any():
                    torch.nn.init.normal_(weight, std=0.2)
    return {name: torch.nn.Module.to(layer, unet.dtype) for name, layer in made.items()}


def tokenizer(max_tokens: int) -> Any:
    """Byte-pair encoding with one merge path per known word; other words fall into letters."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges += [pair] if pair not in merges else []
            pieces = ["".join(pair), *pieces[2:]]
            vocabulary += [pieces[0]] if pieces[0] not in vocabulary else []
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        (files / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
        (files / "merges.txt").write_text(
            "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n"
        )
        (files / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": max_tokens})
        )
        return CLIPTokenizer.from_pretrained(folder)


def _scheduler(prediction: str) -> dict[str, Any]:
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction,
    }
