"""A tiny video transformer of Wan's kind, with random weights and a tokenizer made on the fly."""

from dataclasses import dataclass
from typing import Any

import torch

from freemask.backbones.tiny import ALPHABET, WORDS

CHANNELS, TEXT_WIDTH = 4, 16
NETWORK: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}
VAE: dict[str, Any] = {
    "base_dim": 4,
    "z_dim": CHANNELS,
    "dim_mult": [1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "latents_mean": [0.1, -0.2, 0.3, 0.0],
    "latents_std": [0.5, 0.4, 0.3, 0.2],
    "scale_factor_spatial": 4,
}
TEXT: dict[str, Any] = {
    "d_model": TEXT_WIDTH,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "dropout_rate": 0.0,
}


@dataclass(frozen=True)
class Parts:
    """What a checkpoint of this kind consists of."""

    transformer: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any


def parts(seed: int, dtype: torch.dtype, max_tokens: int, patch: tuple[int, ...]) -> Parts:
    """Two blocks; latents at a quarter of the pixel size and of the frames."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    reader = tokenizer(max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WanTransformer3DModel(patch_size=patch, **NETWORK)
        vae = AutoencoderKLWan(**VAE)
        encoder = UMT5EncoderModel(UMT5Config(vocab_size=len(reader), **TEXT))
    wide = dtype if dtype == torch.float64 else torch.float32
    to = torch.nn.Module.to  # the one of diffusers warns about casts
    return Parts(to(network, dtype), to(vae, wide), to(encoder, wide), reader)


def tokenizer(max_tokens: int) -> Any:
    """Unigram: whole known words, and letters for all others. A blank belongs to the word behind it."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS] + [(letter, -4.0) for letter in ALPHABET]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_tokens)
