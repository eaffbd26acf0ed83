"""What the written-out version made, as a case in the stored format."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.official.written_out import Edit, Scene, stored


def write(folder: Path, name: str, scene: Scene, edits: Sequence[Edit]) -> Path:
    """A case in `folder`/golden, whose tolerance is that of double precision."""
    tensors = {
        "inv/latents": torch.stack([stored(x) for x in scene.latents]),
        "inv/timesteps": torch.tensor(scene.times),
    }
    prompts = {"source": scene.source} | {edit.name: edit.target for edit in edits}
    for key, prompt in prompts.items():
        text, empty = scene.backbone.embed(prompt), scene.backbone.embed("")
        ids = list(text.ids) + [empty.ids[-1]] * (len(text.tokens) - text.length)
        tensors |= {
            f"text/{key}/ids": torch.tensor(ids),
            f"text/{key}/uncond_cond": torch.stack([empty.tokens, text.tokens]),
        }
    for edit in edits:
        tensors |= edit.found
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    about = {
        "official_repo": f"{scene.family}, written out",
        "model_dir": "models/tiny" if scene.family == "FreeMask" else "models/tiny2d",
        "source_prompt": scene.source,
        "editing_prompts": [edit.target for edit in edits],
        "guidance_scale": scene.guidance,
        "num_inference_steps": scene.steps,
        "dtype": "float64",
        "controllers": {edit.name: {} for edit in edits},
        "config": {
            "editing_config": {"p2p_config": {edit.name[4:]: dict(edit.said) for edit in edits}},
            "model_config": {} if scene.look is None else {"SparseCausalAttention_index": list(scene.look)},
        },
        "tensors": {key: {"shape": list(value.shape)} for key, value in tensors.items()},
        "file": f"{name}.safetensors",
        "tolerance": {
            "teacher_forced": 1e-9,
            "inversion_free_running": 1e-9,
            "final_free_running": 1e-7,
            "binary_masks": "soft value within 1e-6, binary pixels where |soft - threshold| < 1e-6",
        },
    }
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "golden" / f"{name}.safetensors")
    path = folder / "golden" / f"{name}.json"
    path.write_text(json.dumps(about))
    return path
