"""A tiny video transformer of HunyuanVideo's kind, with random weights and tokenizers made on the fly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from freemask.backbones import tiny
from freemask.backbones.hunyuan_text import TEMPLATE, HunyuanReader, Pair

CHANNELS, TEXT_WIDTH = 4, 16
MARKS = ("<pad>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
NETWORK: dict[str, Any] = {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": TEXT_WIDTH,
    "pooled_projection_dim": TEXT_WIDTH,
    "rope_axes_dim": (4, 4, 4),
}
VAE: dict[str, Any] = {
    "latent_channels": CHANNELS,
    "down_block_types": ["HunyuanVideoDownBlock3D"] * 3,
    "up_block_types": ["HunyuanVideoUpBlock3D"] * 3,
    "block_out_channels": [4, 4, 4],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "spatial_compression_ratio": 4,
}
LANGUAGE: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}


@dataclass(frozen=True)
class Parts:
    """What a checkpoint of this kind consists of."""

    transformer: Any
    vae: Any
    language: Pair
    clip: Pair


def parts(seed: int, dtype: torch.dtype, max_tokens: int) -> Parts:
    """One block of each kind; latents at a quarter of the pixel size and of the frames."""
    from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    reader, other = tokenizer(HunyuanReader.crop + max_tokens), tiny.tokenizer(77)
    marks = {f"{mark}_token_id": getattr(other, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
    size = {"vocab_size": len(other), "max_position_embeddings": 77}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HunyuanVideoTransformer3DModel(**NETWORK)
        vae = AutoencoderKLHunyuanVideo(**VAE)
        language = LlamaModel(LlamaConfig(vocab_size=len(reader), **LANGUAGE))
        clip = CLIPTextModel(CLIPTextConfig(**tiny.TEXT, **size, **marks))
    wide = dtype if dtype == torch.float64 else torch.float32
    to = torch.nn.Module.to  # the one of diffusers warns about casts
    pairs = Pair(reader, to(language, wide)), Pair(other, to(clip, wide))
    return Parts(to(network, dtype), to(vae, wide), *pairs)


def tokenizer(max_tokens: int) -> Any:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    sentence = TEMPLATE
    for mark in MARKS:
        sentence = sentence.replace(mark, "\n")
    made = bytes_and_words(MARKS, [sentence])
    made.post_processor = processors.TemplateProcessing(
        single=f"{MARKS[1]} $A", special_tokens=[(MARKS[1], made.token_to_id(MARKS[1]))]
    )
    marks = {"pad_token": MARKS[0], "bos_token": MARKS[1], "eos_token": MARKS[4]}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=max_tokens, padding_side="right", **marks
    )


def bytes_and_words(marks: Sequence[str], sentences: Sequence[str]) -> Any:
    """Byte-pair encoding that knows the words of some sentences and a few others; all else falls into bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        special_tokens=list(marks), initial_alphabet=letters, vocab_size=2000, show_progress=False
    )
    made.train_from_iterator([*sentences, *(f"{word} {word}" for word in tiny.WORDS)], trainer)
    return made
