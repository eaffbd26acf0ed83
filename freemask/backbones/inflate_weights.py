"""Temporal layers from a file: read the weights of an inflated network and build what they are weights of."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from freemask.backbones import identity
from freemask.backbones.fresh import attention_like
from freemask.backbones.inflate import LowRankConv
from freemask.errors import UserError

Weights = Mapping[str, Tensor]
# Tune-A-Video calls them otherwise than FateZero.
RENAMED = {".attn_temp.": ".attn_temporal.", ".norm_temp.": ".norm_temporal."}
LAYERS = ("conv_temporal", "attn_temporal", "norm_temporal")
LAVIE = (".time_rel_pos_bias.", ".rotary_emb.")  # in the same layers, which stand elsewhere in their block


def find(path: str | Path, *, allow_pickle: bool = False) -> Path:
    """The file of weights: itself, or the one in a folder or in its `unet`."""
    place = Path(path).expanduser()
    kinds = ("*.safetensors", *(("*.bin",) if allow_pickle else ()))
    folders = (place / "unet", place)
    files = (
        [place] if place.is_file() else [file for f in folders for k in kinds for file in sorted(f.glob(k))]
    )
    if not files or (files[0].suffix != ".safetensors" and not allow_pickle):
        raise UserError(
            "There are no temporal weights here.",
            came=place,
            expected="a .safetensors file, or the folder of a tuned checkpoint with one in its unet/",
            todo="allow_pickle=true also reads .bin and .pt files, which can run code when they are read",
        )
    return files[0]


def identity_of(path: str | Path, *, allow_pickle: bool = False) -> str:
    return identity.of_file(find(path, allow_pickle=allow_pickle))


def read(path: str | Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = find(path, allow_pickle=allow_pickle)
    try:
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers of both formats raise many unrelated kinds
        raise UserError("The temporal weights could not be read.", came=f"{file}: {error}") from error
    if any(each in key for key in found.get("ema", found) for each in LAVIE):
        raise UserError(
            "These are weights of LaVie, whose layers along frames are none that an image model can be given.",
            came=file,
            expected="weights of Tune-A-Video, FateZero or the like",
            todo=f"model=lavie model.path={file}",
        )
    return {_renamed(key): value for key, value in found.items()}


def _renamed(key: str) -> str:
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def is_temporal(name: str) -> bool:
    """Whether a weight is one of the layers that an image network has not."""
    return any(f".{each}." in name for each in LAYERS)


def mount(unet: Any, weights: Weights) -> int:
    """Put the temporal layers into the network, and weights of its own layers over those it has (tuned queries).

    Layers that change nothing, by their weights, are left out. Returns how many there are.
    """
    temporal = {key: value for key, value in weights.items() if is_temporal(key)}
    own = {key: value for key, value in weights.items() if key not in temporal}
    if not temporal:
        raise UserError(
            "There are no temporal layers among these weights.",
            came=f"{len(own)} tensors, such as {next(iter(own), 'none')}",
            expected="names with conv_temporal, attn_temporal or attn_temp",
        )
    _own(unet, own)
    return len(add(unet, temporal))


def add(unet: Any, weights: Weights, *, idle: bool = False) -> list[tuple[nn.Module, str]]:
    """Temporal layers, put where their names say; `idle`: those that change nothing as well. Returns whom they were
    given to, and by what name."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in weights.items():
        layer = next(each for each in LAYERS if f".{each}." in key)
        owner, rest = key.split(f".{layer}.")
        found[owner][f"{layer}.{rest}"] = value
    made = [each for owner, parts in found.items() for each in _layer(unet, owner, parts, idle)]
    for owner, name, layer in made:  # none before all of them fit
        owner.add_module(name, layer)
    return [(owner, name) for owner, name, _ in made]


def _own(unet: Any, weights: Weights) -> None:
    known = unet.state_dict()
    for key, value in weights.items():
        if key not in known or known[key].shape != value.shape:
            here = tuple(known[key].shape) if key in known else "no such layer"
            raise _misfit(key, f"{tuple(value.shape)} in the file", f"{here} in the network")
    unet.load_state_dict(dict(weights), strict=False)


def _layer(unet: Any, owner: str, weights: Weights, idle: bool) -> list[tuple[nn.Module, str, nn.Module]]:
    try:
        module = unet.get_submodule(owner)
    except AttributeError as error:
        raise _misfit(owner, "a temporal layer", "no such layer in the network") from error
    if not idle and _changes_nothing(weights):
        return []
    try:
        if isinstance(module, nn.Conv2d):
            made = _conv(module, weights)
        else:
            made = attention_like(module, bias="attn_temporal.to_q.bias" in weights)
        like = next(module.parameters())
        for name, layer in made.items():
            layer.load_state_dict(_below(weights, name))
            layer.to(like.device, like.dtype)
    except (KeyError, RuntimeError, AttributeError) as error:
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in weights.items())
        raise _misfit(owner, shapes, f"a whole layer of this network's width ({error})") from error
    return [(module, name, layer) for name, layer in made.items()]


def _conv(conv: nn.Conv2d, weights: Weights) -> dict[str, nn.Module]:
    width = conv.out_channels
    if "conv_temporal.down.weight" in weights:
        rank, _, kernel = weights["conv_temporal.down.weight"].shape
        return {"conv_temporal": LowRankConv(width, rank, kernel)}
    kernel = weights["conv_temporal.weight"].shape[-1]
    return {"conv_temporal": nn.Conv1d(width, width, kernel, padding=kernel // 2)}


def _below(weights: Weights, name: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")
    }


def _changes_nothing(weights: Weights) -> bool:
    """An untuned layer: its last weights are zero, or a full convolution that copies the frame."""
    last = ("conv_temporal.up.weight", "attn_temporal.to_out.0.weight", "attn_temporal.to_out.0.bias")
    found = [weights[key] for key in last if key in weights]
    if "conv_temporal.weight" in weights:
        copies = torch.empty_like(weights["conv_temporal.weight"])
        bias = weights.get("conv_temporal.bias", torch.zeros(1))
        found = [weights["conv_temporal.weight"] - nn.init.dirac_(copies), bias]
    return bool(found) and not any(each.count_nonzero() for each in found)


def _misfit(key: str, came: str, expected: str) -> UserError:
    return UserError(
        "The temporal weights do not belong to this network.",
        came=f"{key}: {came}",
        expected=expected,
        todo="give the image model that they were tuned from",
    )
