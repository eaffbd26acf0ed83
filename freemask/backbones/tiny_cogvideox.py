"""A tiny video transformer of CogVideoX's kind, with random weights."""

from typing import Any

import torch

from freemask.backbones.tiny_wan import CHANNELS, TEXT, TEXT_WIDTH, Parts, tokenizer
from freemask.diffusion.noise_paths import Ddim

PATH = Ddim(
    prediction="v_prediction",
    spacing="trailing",
    steps_offset=0,
    set_alpha_to_one=True,
    rescale_betas_zero_snr=True,
    snr_shift_scale=3.0,
)
NETWORK: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "time_embed_dim": 16,
    "text_embed_dim": TEXT_WIDTH,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
}
VAE: dict[str, Any] = {
    "down_block_types": ["CogVideoXDownBlock3D"] * 3,
    "up_block_types": ["CogVideoXUpBlock3D"] * 3,
    "block_out_channels": [4, 4, 4],
    "latent_channels": CHANNELS,
    "layers_per_block": 1,
    "norm_num_groups": 2,
}


def parts(seed: int, dtype: torch.dtype, max_tokens: int, rotary: bool) -> Parts:
    """Two blocks; latents at a quarter of the pixel size and of the frames. Positions as in the 2B network (added to
    the tokens), or as in the 5B one (`rotary`)."""
    from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    reader = tokenizer(max_tokens)
    places = {"use_rotary_positional_embeddings": rotary, "max_text_seq_length": max_tokens}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CogVideoXTransformer3DModel(**NETWORK, **places)
        vae = AutoencoderKLCogVideoX(**VAE)
        encoder = T5EncoderModel(T5Config(vocab_size=len(reader), **TEXT))
    wide = dtype if dtype == torch.float64 else torch.float32
    to = torch.nn.Module.to  # the one of diffusers warns about casts
    return Parts(to(network, dtype), to(vae, wide), to(encoder, wide), reader)
