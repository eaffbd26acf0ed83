"""A tiny video transformer of LTX-Video's kind, with random weights."""

from typing import Any

import torch

from freemask.backbones.tiny_wan import TEXT, TEXT_WIDTH, Parts, tokenizer

CHANNELS = 8
NETWORK: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "cross_attention_dim": 32,
    "caption_channels": TEXT_WIDTH,
    "num_layers": 2,
}
SCALED = (True, True, True, False)  # levels of the autoencoder that halve frames, height and width
VAE: dict[str, Any] = {
    "latent_channels": CHANNELS,
    "block_out_channels": (4, 4, 4, 4),
    "decoder_block_out_channels": (4, 4, 4, 4),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
    "spatio_temporal_scaling": SCALED,
    "decoder_spatio_temporal_scaling": SCALED,
    "patch_size": 1,
}


def parts(seed: int, dtype: torch.dtype, max_tokens: int, *, conditioned: bool = False) -> Parts:
    """Two blocks; latents at an eighth of the pixel size and of the frames. `conditioned`: the autoencoder wants a time
    and noise when it decodes, as since 0.9.1."""
    from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    reader = tokenizer(max_tokens)
    more = {"timestep_conditioning": conditioned, "decoder_inject_noise": (conditioned,) * 5}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LTXVideoTransformer3DModel(**NETWORK)
        vae = AutoencoderKLLTXVideo(**VAE, **more)
        encoder = T5EncoderModel(T5Config(vocab_size=len(reader), **TEXT))
        vae.latents_mean.copy_(torch.randn(CHANNELS) / 2)
        vae.latents_std.copy_(torch.rand(CHANNELS) + 0.5)
    wide = dtype if dtype == torch.float64 else torch.float32
    to = torch.nn.Module.to  # the one of diffusers warns about casts
    return Parts(to(network, dtype), to(vae, wide), to(encoder, wide), reader)
