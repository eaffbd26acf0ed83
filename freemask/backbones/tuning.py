"""Weights of a network that change for a while: as a whole, or by low-rank additions (LoRA); then all is as before."""

import zlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from freemask.backbones import identity
from freemask.errors import UserError, nearest

SINGLE = 32  # bits


class Tuned:
    """Entered for as long as the weights are others. A pattern is the path of a weight with * for any piece of it.

    With a `rank`, the weights of linear layers stay, and what is trained is down and up of W + up down; up is 0 at
    first, so that nothing changes before a step of training. What is trained is in single precision whatever the
    network's: of a network in half precision, copies of the weights, which it uses rounded.
    """

    def __init__(
        self,
        network: nn.Module,
        patterns: Sequence[str],
        rank: int = 0,
        more: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`more` are weights that were put into the network for this while: they tell it from others, too."""
        if rank < 0:
            raise UserError("A rank is a whole number.", came=rank, expected="0 (the whole weight) or more")
        self.network, self.rank, self.more = network, rank, dict(more or {})
        self._chosen = _matching(network, patterns)
        for name in self._chosen:  # all of them before the first is touched
            _check(network, name, rank)
        self._before: dict[str, Tensor] = {}
        # Weights for which a finer copy stands in, each with the hook that lets it.
        self._rounded: dict[str, tuple[nn.Parameter, Any]] = {}
        self._hooks: list[Any] = []
        self._over = False
        self._settled: str | None = None  # the identity, once nothing changes any more
        self.weights: dict[str, Tensor] = {}

    def __enter__(self) -> "Tuned":
        try:
            self._begin()
        except BaseException:  # memory may run out on the way
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        if self.rank > 0:
            for name in self._chosen:
                self._add(name)
        else:
            own = {name: self.network.get_parameter(name) for name in self._chosen}
            self._before = {name: weight.detach().clone() for name, weight in own.items()}
            for name, weight in own.items():
                self.weights[name] = self._finer(name, weight)
        for weight in self.weights.values():
            weight.requires_grad_(True)

    def __exit__(self, *_: object) -> None:
        self.settle()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        with torch.no_grad():
            for name, value in self._before.items():
                self.network.get_parameter(name).copy_(value)
        self._before, self.weights, self._over = {}, {}, True

    def settle(self) -> None:
        """No more training: the weights stay as they are now, rounded where the network is, until the end."""
        for name, weight in self.weights.items():
            weight.requires_grad_(False)
            weight.grad = None
            if name in self._rounded:
                own, hook = self._rounded.pop(name)
                hook.remove()
                path, _, part = name.rpartition(".")
                vars(self.network.get_submodule(path)).pop(part, None)
                with torch.no_grad():
                    own.copy_(weight)

    def _finer(self, name: str, weight: nn.Parameter) -> Tensor:
        """What is trained in place of a weight: itself, or a finer copy of it that the layer rounds at each use."""
        if not weight.is_floating_point() or torch.finfo(weight.dtype).bits >= SINGLE:
            return weight
        path, _, part = name.rpartition(".")
        layer, fine = self.network.get_submodule(path), weight.detach().float()

        def stand_in(module: nn.Module, args: tuple[Any, ...]) -> None:
            # Found before the weight itself, which stays where it is.
            vars(module)[part] = fine.to(weight.dtype)

        self._rounded[name] = weight, layer.register_forward_pre_hook(stand_in)
        return fine

    @property
    def identity(self) -> str:
        """Of what the network differs by; weights that are trained still give another one after each step."""
        if any(weight.requires_grad for weight in self.weights.values()):
            return self._hashed()
        self._settled = self._settled or self._hashed()
        return self._settled

    def _hashed(self) -> str:
        return identity.of_tensors({**self.more, **self.state()})

    def state(self) -> dict[str, Tensor]:
        """To be taken while it lasts."""
        if self._over:
            raise RuntimeError("the tuning is over and its weights are gone: take its state before it ends")
        plain = torch.contiguous_format  # files take no other
        return {
            name: weight.detach().cpu().clone(memory_format=plain) for name, weight in self.weights.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        strange = set(state) ^ set(self.weights)
        if strange:
            raise UserError(
                "These are not the weights that are tuned.",
                came=", ".join(sorted(state)[:4]),
                expected=", ".join(sorted(self.weights)[:4]),
                todo=f"{len(strange)} names are on one side only, such as {min(strange)}",
            )
        self._settled = None
        with torch.no_grad():
            for name, value in state.items():
                self.weights[name].copy_(value)

    def _add(self, name: str) -> None:
        layer: Any = self.network.get_submodule(name.rpartition(".")[0])
        rng = torch.Generator().manual_seed(zlib.crc32(name.encode()))  # the same for the same layer
        start = torch.randn(self.rank, layer.in_features, generator=rng) / self.rank**0.5
        exact = torch.promote_types(layer.weight.dtype, torch.float32)
        down = start.to(layer.weight.device, exact)
        up = torch.zeros(layer.out_features, self.rank, device=down.device, dtype=exact)
        self.weights |= {f"{name}.down": down, f"{name}.up": up}

        def addition(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return output + (args[0].to(exact) @ down.T @ up.T).to(output)

        self._hooks.append(layer.register_forward_hook(addition))


def _check(network: nn.Module, name: str, rank: int) -> None:
    path, _, part = name.rpartition(".")
    layer = network.get_submodule(path)
    if rank > 0 and not (isinstance(layer, nn.Linear) and part == "weight"):
        raise UserError(
            "A low-rank addition is for the weights of linear layers.",
            came=f"{name} of a {type(layer).__name__}",
            expected="patterns such as *.attn1.to_q.weight",
        )


def _matching(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in network.named_parameters()]
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    if not wanted:
        raise UserError("No weights are named.", came="no patterns", expected="such as *.attn1.to_q.weight")
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                "No weight has such a name.",
                came=pattern,
                expected="the path of a weight, with * for any piece of it",
                todo=nearest(pattern, names),
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted)]
