"""Writing and reading the embedded models in the ordinary diffusers / transformers directory layout."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.workshop.networks import SCHEDULE
from experiments.workshop.tokenizer import write_tokenizer

PIPELINES = {
    "t2i": ("StableDiffusionPipeline", "UNet2DConditionModel"),
    "t2v": ("TextToVideoSDPipeline", "UNet3DConditionModel"),
}


def write_scheduler(folder: Path) -> None:
    config = {
        "_class_name": "DDIMScheduler",
        **SCHEDULE,
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_pipeline(
    folder: Path, kind: str, *, unet: nn.Module, vae: nn.Module, text_encoder: nn.Module
) -> None:
    """Everything in half precision; `kind` is 't2i' or 't2v'."""
    pipeline, unet_class = PIPELINES[kind]
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "text_encoder": text_encoder}
    for name, module in parts.items():
        before = {key: value.detach().clone() for key, value in module.state_dict().items()}
        module.to(torch.float16).save_pretrained(folder / name)
        module.to(torch.float32).load_state_dict(before)
    write_tokenizer(folder / "tokenizer")
    write_scheduler(folder / "scheduler")
    index = {
        "_class_name": pipeline,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", unet_class],
        "vae": ["diffusers", "AutoencoderDC"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
