"""BLIP (Li et al., 2022) as transformers has it: a sentence about a picture."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.backbones import checkpoint, identity
from freemask.errors import UserError
from freemask.settings import Effect

KIND = "blip"
WEIGHTS = "Salesforce/blip-image-captioning-base"  # the one that FateZero's authors' tool loads


@dataclass(frozen=True)
class Blip:
    """`weights`: a folder, or a hub id that was fetched before; nothing is downloaded. `beams`: so many sentences are
    followed at once, and the likeliest is taken, without any draw; `shortest` and `longest` in tokens."""

    weights: Annotated[str | Path, Effect.FILES] = WEIGHTS
    beams: int = 3
    shortest: int = 5
    longest: int = 20
    device: Annotated[str, Effect.NONE] = "cpu"
    allow_pickle: Annotated[bool, Effect.NONE] = False

    def __post_init__(self) -> None:
        if not (self.beams >= 1 and 1 <= self.shortest <= self.longest):
            raise UserError(
                "no sentence can be this long",
                came=f"captions.beams={self.beams}, shortest={self.shortest}, longest={self.longest}",
                expected="1 or more beams, and 1 <= shortest <= longest",
            )

    def who(self) -> str:
        return f"BLIP ({Path(str(self.weights)).name}, {identity.of_folder(self._folder(), ['.'])})"

    def __call__(self, frame: Float[Tensor, "3 h w"]) -> str:
        network, prepare = load(self._folder(), self.device, self.allow_pickle)
        pixels = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        given = prepare(images=pixels, return_tensors="pt").to(self.device)
        with torch.no_grad():
            said = network.generate(
                pixel_values=given["pixel_values"],
                do_sample=False,
                num_beams=self.beams,
                min_length=self.shortest,
                max_length=self.longest,
            )
        return prepare.decode(said[0], skip_special_tokens=True)

    def _folder(self) -> Path:
        patterns = [
            "*.json",
            "*.txt",
            *checkpoint.WEIGHTS,
            *(checkpoint.PICKLES if self.allow_pickle else ()),
        ]
        try:
            folder = checkpoint.alone(self.weights, patterns, local_files_only=True)
            kind = checkpoint.read_json(folder / "config.json").get("model_type")
        except UserError as error:
            raise UserError(
                "source=auto asks BLIP what the clip shows, and BLIP is not here",
                came=f"captions.weights={self.weights}: {error.wrong}",
                expected="its weights, which are never fetched without being asked for",
                todo=f'hf download {WEIGHTS}; or captions.weights=DIR; or say it yourself: source="..."',
            ) from error
        if kind != KIND:
            raise UserError(
                "This network is not BLIP.", came=f"{folder}: {kind}", expected=f"one such as {WEIGHTS}"
            )
        return folder


@lru_cache(maxsize=1)
def load(folder: Path, device: str, allow_pickle: bool) -> tuple[Any, Any]:
    """Read once per process."""
    safe = any(folder.glob(checkpoint.WEIGHTS[0]))
    if not safe and not allow_pickle:
        raise UserError(
            "These weights of BLIP are pickled, and such files can run code when they are read.",
            came=folder,
            expected="a .safetensors file",
            todo="captions.allow_pickle=true if you trust them",
        )

    def read() -> tuple[Any, Any]:
        import transformers as library

        own: dict[str, Any] = {"local_files_only": True}
        with checkpoint.no_bars(library):
            prepare: Any = library.BlipProcessor.from_pretrained(folder, **own)
            network: Any = library.BlipForConditionalGeneration.from_pretrained(
                folder, use_safetensors=safe, **own
            )
        return network.eval().requires_grad_(False).to(device), prepare

    return checkpoint.read(folder, read)
