"""LaVie as its authors publish it: one file with the network, beside the image model that has all else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freemask.backbones import checkpoint, identity, inflation, weightless
from freemask.backbones.checkpoint import Checkpoint
from freemask.backbones.lavie_unet import LaVieUNet, blocks, frequencies
from freemask.backbones.turns import REST
from freemask.errors import UserError

HUB, IMAGE_MODEL = "YaohuiW/LaVie", "CompVis/stable-diffusion-v1-4"
FILES = ("lavie_base.safetensors", "lavie_base.pt")
INSIDE = "ema"  # where the weights lie in some pickled files
NOISE = {
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
}  # where it is not the image model's
# Its own names of the layers along frames, and ours.
RENAMED = {
    ".attn_temp.time_rel_pos_bias.relative_attention_bias.": ".attn_temporal.distances.",
    ".attn_temp.": ".attn_temporal.",
    ".norm_temp.": ".norm_temporal.",
}
ROTATION = ".attn_temp.rotary_emb.freqs"  # in every layer: a constant, which is checked and left


@dataclass(frozen=True)
class Released(Checkpoint):
    """The image model's folder, whose network is that of `file`."""

    file: Path = Path()

    def part(self, name: str, classes: Sequence[str], dtype: torch.dtype, place: torch.device = REST) -> Any:
        if name != "unet":
            return super().part(name, classes, dtype, place)
        return _built(self.shape(), read(self.file), dtype, place, self.file)

    def shape(self) -> dict[str, Any]:
        """The network's settings, which are the image model's: weights alone do not tell them."""
        return {key: value for key, value in self.config("unet").items() if not key.startswith("_")}

    def scheduler(self) -> dict[str, Any]:
        return {**super().scheduler(), **NOISE}

    def identity(self, parts: Sequence[str]) -> str:
        rest = super().identity([each for each in parts if each != "unet"])
        network = {"network": identity.of_file(self.file), "shape": self.shape()}
        return identity.of_facts({"rest": rest, **network, **NOISE})


def find(
    path: str | Path,
    image_model: str | Path,
    weights: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
) -> Checkpoint:
    """`revision` is that of LaVie."""
    if weights is not None:
        return weightless.find(path, weights)
    file = _file(path, revision=revision, local_files_only=local_files_only, allow_pickle=allow_pickle)
    rest = checkpoint.find(image_model, local_files_only=local_files_only, allow_pickle=allow_pickle)
    rest.kind("unet", ("UNet2DConditionModel",))
    inflation.check(rest.config("unet"))
    return Released(rest.folder, rest.classes, allow_pickle, file)


def _file(path: str | Path, *, revision: str | None, local_files_only: bool, allow_pickle: bool) -> Path:
    place, either = Path(path).expanduser(), " or ".join(FILES)
    get = f"hf download {HUB} {FILES[1]} --local-dir DIR, then model.path=DIR model.allow_pickle=true"
    if place.is_file():
        found = [place]
    else:
        wanted = FILES if allow_pickle else FILES[:1]
        try:
            folder = checkpoint.alone(path, wanted, revision=revision, local_files_only=local_files_only)
        except UserError as error:  # which speaks of folders in another layout
            expected = f"{either}, a folder with it, or a hub id that can be reached"
            raise UserError(error.wrong, came=error.came, expected=expected, todo=get) from error
        found = [each for name in FILES if (each := folder / name).is_file()]
    if not found:
        raise UserError("There are no weights of LaVie here.", came=path, expected=either, todo=get)
    if found[0].suffix != ".safetensors" and not allow_pickle:
        raise UserError(
            "These weights of LaVie are pickled, and such files can run code when they are read.",
            came=found[0],
            expected=f"{FILES[0]}, or the word that the file is trusted",
            todo="model.allow_pickle=true if you trust it",
        )
    return found[0]


def read(file: Path) -> dict[str, Tensor]:
    """By our names."""
    from safetensors.torch import load_file

    try:
        safe = file.suffix == ".safetensors"
        found: Any = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
        found = found.get(INSIDE, found)
        found = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    except Exception as error:  # the readers of both formats raise many unrelated kinds
        raise UserError(
            "The weights of LaVie could not be read.", came=f"{file}: {type(error).__name__}: {error}"
        ) from error
    return {_renamed(key): value for key, value in found.items() if not _is_rotation(key, value, file)}


def _renamed(key: str) -> str:
    for own, ours in RENAMED.items():
        key = key.replace(own, ours)
    return key


def _is_rotation(key: str, value: Tensor, file: Path) -> bool:
    if not key.endswith(ROTATION):
        return False
    known = frequencies(2 * value.numel())
    if not torch.allclose(value.double(), known, rtol=1e-2, atol=1e-6):  # the file may be in half precision
        raise UserError(
            "Frames are told apart by another rotation than LaVie's.",
            came=f"{file}: {key}",
            expected=f"{known[0]:.3g} to {known[-1]:.3g} radians from a frame to the next",
        )
    return True


def _built(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    place: torch.device,
    file: Path,
) -> LaVieUNet:
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network: Any = LaVieUNet(**config)
    here = network.state_dict()
    _fit({key: tuple(each.shape) for key, each in here.items()}, weights, len([*blocks(network)]), file)
    network.load_state_dict({key: each.to(place, dtype) for key, each in weights.items()}, assign=True)
    return network.to(place)


def _fit(
    wanted: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor], layers: int, file: Path
) -> None:
    shapes = {key: tuple(each.shape) for key, each in weights.items()}
    wrong = sorted(key for key in {*wanted, *shapes} if wanted.get(key) != shapes.get(key))
    if wrong:
        key = wrong[0]
        raise UserError(
            "These are not the weights of LaVie's network, or the image model is another than it was made from.",
            came=f"{file}: {len(wrong)} weights do not fit, such as {key}: {shapes.get(key, 'not there')}",
            expected=f"{wanted.get(key, 'no such weight')}; {layers} layers along frames, attn_temp and norm_temp",
            todo=f"lavie_base.pt of {HUB}, and model.image_model={IMAGE_MODEL}",
        )
