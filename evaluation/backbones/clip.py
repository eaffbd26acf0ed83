"""CLIP towers as feature extractors: the embedded one, and OpenAI's where their weights are here."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.backbones.weights import Found, find, present
from evaluation.case import Case
from evaluation.ops import resize_cubic
from freemask.errors import UserError

CHOICES = ("auto", "embedded", "vit_b_32", "vit_l_14")
CHUNK = 32


@dataclass(frozen=True, eq=False)
class Clip:
    """Image and text features of unit length, for frames in 0..1 of any size."""

    label: str
    model: Any
    tokenizer: Callable[..., Tensor]
    device: torch.device

    def images(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f d"]:
        """The batch norm of small models is in evaluation mode, so frames do not see each other."""
        chunks = self.prepared(frames).split(CHUNK)
        with torch.inference_mode():
            return torch.cat([self.model.encode_image(chunk, normalize=True).cpu() for chunk in chunks])

    def maps(self, frames: Float[Tensor, "f 3 h w"]) -> Sequence[Tensor]:
        """Feature maps `f c h w` of all blocks of the image tower, first to last."""
        chunks = self.prepared(frames).split(CHUNK)
        with torch.inference_mode():
            parts = [
                self.model.visual.forward_intermediates(chunk, intermediates_only=True)["image_intermediates"]
                for chunk in chunks
            ]
        return [torch.cat(blocks).cpu() for blocks in zip(*parts, strict=True)]

    def text(self, prompt: str) -> Float[Tensor, "1 d"]:
        with torch.inference_mode():
            return self.model.encode_text(self.tokenizer([prompt]).to(self.device), normalize=True).cpu()

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt is longer than the text tower can read (what follows is then ignored)."""
        short = self.tokenizer([prompt])
        length = short.shape[1]
        whole = self.tokenizer([prompt], context_length=length + len(prompt.encode()) + 2)
        return not torch.equal(short, whole[:, :length]) or bool((whole[:, length:] != whole[:, -1:]).any())

    def prepared(self, frames: Float[Tensor, "f 3 h w"]) -> Float[Tensor, "f 3 size size2"]:
        """The model's own preprocessing, on tensors: resize (antialiased bicubic), centre crop, normalise.

        Frames smaller than the model's input are enlarged by the same rule. With `resize_mode` 'shortest'
        (CLIP's own) the ends of the longer side of a non-square clip are not seen.
        """
        cfg = self.model.visual.preprocess_cfg
        height, width = (cfg["size"],) * 2 if isinstance(cfg["size"], int) else cfg["size"]
        frames = frames.float()
        if cfg["resize_mode"] == "squash":
            frames = resize_cubic(frames, height, width)
        else:
            frames = _cover_and_crop(frames, height, width)
        mean, std = (torch.tensor(cfg[key])[:, None, None] for key in ("mean", "std"))
        return ((frames - mean.to(frames)) / std.to(frames)).to(self.device)


def resolve(backbone: str, weights: str | None = None) -> Found:
    """What a setting means here; `auto` is OpenAI's ViT-B/32 if present, else the embedded CLIP."""
    if backbone not in CHOICES:
        raise UserError(f"there is no CLIP backbone '{backbone}'", expected=", ".join(CHOICES))
    if backbone == "auto":
        if weights is not None:
            raise UserError(
                "weights=PATH needs to know the backbone", came="backbone=auto", expected=CHOICES[1:]
            )
        backbone = "vit_b_32" if present("vit_b_32") else "embedded"
    return find(backbone, weights)


def load(found: Found, device: str = "auto") -> Clip:
    """Read once per process."""
    return _load(found, pick_device(device))


def edited(case: Case, found: Found, device: str = "auto") -> Float[Tensor, "f d"]:
    """Features of a case's edited frames, made once for all metrics that ask."""
    return case.once(("clip", found, device), lambda: load(found, device).images(case.edited))


def prompt(case: Case, text: str, found: Found, device: str = "auto") -> Float[Tensor, "1 d"]:
    """Features of one of its prompts."""
    return case.once(("clip", found, device, text), lambda: load(found, device).text(text))


def pick_device(device: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


@lru_cache(maxsize=4)
def _load(found: Found, device: str) -> Clip:
    path, label = found.path or Path(), found.label
    try:
        model, tokenizer = _from_directory(path) if path.is_dir() else _from_file(found.architecture, path)
    except Exception as error:
        raise UserError(
            f"the CLIP weights '{label}' cannot be read",
            came=f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            expected="an open_clip directory, or a file with OpenAI's weights",
        ) from error
    cfg = model.visual.preprocess_cfg
    if cfg["resize_mode"] not in ("shortest", "squash") or cfg["interpolation"] != "bicubic":
        raise UserError(f"the preprocessing of '{label}' is not known here", came=cfg)
    return Clip(label, model.eval().requires_grad_(False).to(device), tokenizer, torch.device(device))


def _from_directory(path: Path) -> tuple[Any, Callable[..., Tensor]]:
    import open_clip

    name = f"local-dir:{path}"
    config = json.loads((path / "open_clip_config.json").read_text(encoding="utf-8"))
    own = bool(config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"))
    model = open_clip.create_model_from_pretrained(name, return_transform=False)
    offline: dict[str, Any] = {"local_files_only": True} if own else {}
    return model, open_clip.get_tokenizer(name, **offline)


def _from_file(architecture: str, path: Path) -> tuple[Any, Callable[..., Tensor]]:
    import open_clip

    if not architecture:
        raise ValueError("this backbone is a directory, not a file")
    model: Any = open_clip.create_model(architecture)
    if path.suffix == ".pt":
        with warnings.catch_warnings():
            # OpenAI's archives are TorchScript, which torch is about to retire.
            warnings.simplefilter("ignore", FutureWarning)
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
        sizes = ("input_resolution", "context_length", "vocab_size")
        model.load_state_dict({key: value for key, value in state.items() if key not in sizes})
    else:
        from open_clip.factory import load_checkpoint

        load_checkpoint(model, str(path))
    return model, open_clip.get_tokenizer(architecture)


def _cover_and_crop(frames: Tensor, height: int, width: int) -> Tensor:
    h, w = frames.shape[-2:]
    if height == width:
        size = (height, int(height * w / h)) if h <= w else (int(width * h / w), width)
    else:
        short = max(height / h, width / w)
        size = (round(h * short), round(w * short))
    frames = resize_cubic(frames, *size)
    top, left = round((size[0] - height) / 2.0), round((size[1] - width) / 2.0)
    return frames[..., top : top + height, left : left + width]
