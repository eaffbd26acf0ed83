"""Weights of a network that change for a while: as a whole, or by low-rank additions (LoRA); then all is as before."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from freemask.errors import UserError, nearest


class Tuned:
    """Entered for as long as the weights are others. A pattern is the path of a weight with * for any piece of it.

    With a `rank`, the weights of linear layers stay, and what is trained is down and up of W + up down; up is 0 at
    first, so that nothing changes before a step of training.
    """

    def __init__(self, network: nn.Module, patterns: Sequence[str], rank: int = 0) -> None:
        self.network, self.rank = network, rank
        self._chosen = _matching(network, patterns)
        self._before: dict[str, Tensor] = {}
        self._hooks: list[Any] = []
        self.weights: dict[str, Tensor] = {}

    def __enter__(self) -> "Tuned":
        if self.rank > 0:
            for name in self._chosen:
                self._add(name)
        else:
            self.weights = {name: self.network.get_parameter(name) for name in self._chosen}
            self._before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        for weight in self.weights.values():
            weight.requires_grad_(True)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        with torch.no_grad():
            for name, value in self._before.items():
                weight = self.network.get_parameter(name)
                weight.copy_(value)
                weight.requires_grad_(False)
                weight.grad = None
        self._before, self.weights = {}, {}

    def state(self) -> dict[str, Tensor]:
        return {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        strange = set(state) ^ set(self.weights)
        if strange:
            raise UserError(
                "These are not the weights that are tuned.",
                came=", ".join(sorted(state)[:4]),
                expected=", ".join(sorted(self.weights)[:4]),
                todo=f"{len(strange)} names are on one side only, such as {min(strange)}",
            )
        with torch.no_grad():
            for name, value in state.items():
                self.weights[name].copy_(value)

    def _add(self, name: str) -> None:
        layer = self.network.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Linear):
            raise UserError(
                "A low-rank addition is for linear layers.",
                came=f"{name} of a {type(layer).__name__}",
                expected="patterns such as *.attn1.to_q.weight",
            )
        like = layer.weight.detach()
        # The same numbers for the same layer, whatever else was drawn before.
        rng = torch.Generator().manual_seed(len(self.weights))
        start = torch.randn(self.rank, layer.in_features, generator=rng) / self.rank**0.5
        down = start.to(like).detach()
        up = like.new_zeros(layer.out_features, self.rank)
        self.weights |= {f"{name}.down": down, f"{name}.up": up}

        def addition(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return output + args[0] @ down.T @ up.T

        self._hooks.append(layer.register_forward_hook(addition))


def _matching(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                "No weight has such a name.",
                came=pattern,
                expected="the path of a weight, with * for any piece of it",
                todo=nearest(pattern, names),
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
