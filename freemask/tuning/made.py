"""Tuned weights in a file: our own, or a checkpoint that another code left. Only those that the model has not."""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from freemask.backbones.inflate_weights import find, is_temporal, read
from freemask.errors import UserError
from freemask.types import Backbone

FORMAT = "freemask tuned weights 1"
ADDITIONS = (".weight.down", ".weight.up")  # to weights of layers, by their names (freemask.backbones.tuning)
CLOSE = 2e-3  # weights that went through half precision differ by as much, relative to the largest of their tensor


class Made(NamedTuple):
    """Weights that the network has, changed, and layers that it has not."""

    own: dict[str, Tensor]
    more: dict[str, Tensor]
    facts: Mapping[str, str]


def facts_for(backbone: Backbone, prompt: str, recipe: Mapping[str, Any]) -> dict[str, str]:
    """What a file says of itself."""
    return {"format": FORMAT, "base": backbone.origin, "prompt": prompt, "recipe": json.dumps(dict(recipe))}


def open_made(
    place: str | Path, backbone: Any, learning: Sequence[str], *, allow_pickle: bool = False
) -> Made:
    """What the file changes of this network. Refused where it was tuned from other weights: where it names them, and
    else where it differs in what such a tuning leaves alone."""
    path = find(place, allow_pickle=allow_pickle)
    found, facts = read(path, allow_pickle=allow_pickle), _facts(path)
    ours = facts.get("format") == FORMAT
    if ours and facts.get("base") != backbone.origin:
        raise _other(path, f"weights of the model {facts.get('base')}", f"of {backbone.origin}")
    known = dict(backbone.network.state_dict())
    more = {name: value for name, value in found.items() if _is_layer(name) and name not in known}
    own = {}
    for name, value in found.items():
        if name in more:
            continue
        if name in known and value.shape != known[name].shape:
            raise _other(path, f"{name} of {tuple(value.shape)}", f"{tuple(known[name].shape)}")
        if ours or any(fnmatchcase(name, pattern) for pattern in learning):
            if name not in known or not torch.equal(value.to(known[name]), known[name]):
                own[name] = value
        elif name not in known or not _close(value, known[name]):
            raise _other(path, f"another {name}", "the model's own, since tuning leaves it alone")
    if not own and not more:
        raise UserError(
            "These weights are those that the model has.", came=path, todo="leave tuning.path out"
        )
    return Made(own, more, facts)


def _is_layer(name: str) -> bool:
    return is_temporal(name) and not name.endswith(ADDITIONS)


def _facts(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _close(value: Tensor, known: Tensor) -> bool:
    value, known = value.float(), known.detach().float().cpu()
    return bool(
        (value - known).abs().max() <= CLOSE * known.abs().max().clamp_min(torch.finfo(torch.float16).tiny)
    )


def _other(path: str | Path, came: str, expected: str) -> UserError:
    return UserError(
        "These weights were tuned from another model.",
        came=f"{path}: {came}",
        expected=expected,
        todo="give the model that they were tuned from, set as it was (model=..., model.attention=...)",
    )
