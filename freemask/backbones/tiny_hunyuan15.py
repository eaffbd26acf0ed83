"""A tiny video transformer of the kind of HunyuanVideo 1.5, with random weights and a tokenizer made on the fly."""

from dataclasses import dataclass
from typing import Any

import torch

from freemask.backbones.hunyuan_text import SYSTEM, Hunyuan15Reader, Pair
from freemask.backbones.tiny_hunyuan import CHANNELS, TEXT_WIDTH, bytes_and_words

MARKS = ("<pad>", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for said in messages %}<|im_start|>{{ said.role }}\n{{ said.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NETWORK: dict[str, Any] = {
    "in_channels": 2 * CHANNELS + 1,
    "out_channels": CHANNELS,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": TEXT_WIDTH,
    "text_embed_2_dim": TEXT_WIDTH,
    "image_embed_dim": 8,
    "rope_axes_dim": (4, 4, 4),
    "task_type": "t2v",
}
VAE: dict[str, Any] = {
    "latent_channels": CHANNELS,
    "block_out_channels": (8, 8, 8),
    "layers_per_block": 1,
    "spatial_compression_ratio": 4,
}
LANGUAGE: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [2, 1, 1]},
    "bos_token_id": None,
    "eos_token_id": MARKS.index("<|im_end|>"),
}


@dataclass(frozen=True)
class Parts:
    """What a checkpoint of this kind consists of, without the encoder of letters."""

    transformer: Any
    vae: Any
    language: Pair


def parts(seed: int, dtype: torch.dtype, max_tokens: int) -> Parts:
    """Two blocks; latents at a quarter of the pixel size and of the frames."""
    from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import AutoencoderKLHunyuanVideo15
    from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15Transformer3DModel
    from transformers import Qwen2_5_VLTextModel
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig

    reader = tokenizer(Hunyuan15Reader.crop + max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HunyuanVideo15Transformer3DModel(**NETWORK)
        vae = AutoencoderKLHunyuanVideo15(**VAE)
        language = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(vocab_size=len(reader), **LANGUAGE))
    wide = dtype if dtype == torch.float64 else torch.float32
    to = torch.nn.Module.to  # the one of diffusers warns about casts
    return Parts(to(network, dtype), to(vae, wide), Pair(reader, to(language, wide)))


def tokenizer(max_tokens: int) -> Any:
    """Roles are spelt out, so that the sentence has more tokens than are cut off."""
    from transformers import PreTrainedTokenizerFast

    made = bytes_and_words(MARKS, [SYSTEM])
    marks = {"pad_token": MARKS[0], "eos_token": MARKS[2], "chat_template": CHAT}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=max_tokens, padding_side="right", **marks
    )
