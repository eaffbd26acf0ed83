"""Muon: momentum whose update is made orthogonal, for the matrices of a network (convolutions as flat matrices).

torch.optim.Muon takes two-axis parameters only; most of a U-Net's are convolutions. Vectors, embeddings and the
first and last layers stay with AdamW, in the same optimiser object so that checkpoints hold one state. Matrices of one
shape are updated together, which is most of the time of a small network's step on a GPU.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Jordan et al. 2024
MOMENTUM = 0.95
BETAS = (0.9, 0.98)
foreach: Any = torch  # whose operations over lists of tensors have no types
OUTER = ("conv_in", "conv_out", "embedding.weight", "position_embedding")


def orthogonal(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Approximately orthogonal matrices with the same singular vectors; on a GPU in half precision, which is enough."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Groups with `matrix=True` get orthogonal updates, the others AdamW."""

    def __init__(self, groups: Iterable[dict]) -> None:
        super().__init__(groups, {})

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The closure does everything, the update too: a graph may hold it."""
        return closure()

    @torch.no_grad()
    def update(self, factor: Tensor) -> None:
        """`factor` times the rates of the groups. Every parameter has a gradient."""
        for group in self.param_groups:
            if group["matrix"]:
                for same in _by_shape(group["params"]):
                    self._matrices(same, group["lr"] * factor)
            elif group["params"]:
                self._vectors(group["params"], group["lr"] * factor)

    def tensors(self) -> list[Tensor]:
        """Everything that it remembers."""
        return [each for state in self.state.values() for each in state.values()]

    def _matrices(self, parameters: Sequence[Tensor], rate: Tensor) -> None:
        gradients, buffers = self._known(parameters, "momentum")
        foreach._foreach_lerp_(buffers, gradients, 1 - MOMENTUM)
        ahead = foreach._foreach_lerp(gradients, buffers, MOMENTUM)
        flat = torch.stack([each.flatten(1) for each in ahead])
        updates = orthogonal(flat) * (-rate * max(1.0, flat.shape[1] / flat.shape[2]) ** 0.5)
        foreach._foreach_add_(
            parameters, [each.view_as(p) for each, p in zip(updates, parameters, strict=True)]
        )

    def _vectors(self, parameters: Sequence[Tensor], rate: Tensor) -> None:
        gradients, first, second = self._known(parameters, "first", "second")
        count = self.state[parameters[0]].setdefault("count", torch.zeros((), device=parameters[0].device))
        count += 1
        foreach._foreach_lerp_(first, gradients, 1 - BETAS[0])
        foreach._foreach_mul_(second, BETAS[1])
        foreach._foreach_addcmul_(second, gradients, gradients, 1 - BETAS[1])
        below = foreach._foreach_div(second, 1 - BETAS[1] ** count)
        foreach._foreach_sqrt_(below)
        foreach._foreach_add_(below, 1e-8)
        updates = foreach._foreach_div(first, 1 - BETAS[0] ** count)
        foreach._foreach_div_(updates, below)
        foreach._foreach_mul_(updates, -rate)
        foreach._foreach_add_(parameters, updates)

    def _known(self, parameters: Sequence[Tensor], *names: str) -> list[list[Tensor]]:
        """The gradients, and what is remembered of each parameter under these names."""
        for each in parameters:
            for name in names:
                if name not in self.state[each]:
                    self.state[each][name] = torch.zeros_like(each)
        gradients = [each.grad for each in parameters if each.grad is not None]
        return [gradients, *([self.state[each][name] for each in parameters] for name in names)]


def _by_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    found: dict[tuple[int, int], list[Tensor]] = {}
    for each in parameters:
        found.setdefault((len(each), each[0].numel()), []).append(each)
    return list(found.values())


def split_parameters(
    model: nn.Module, names: Container[str] | None = None, *, matrix_lr: float, vector_lr: float
) -> list[dict]:
    """Matrices that map hidden to hidden go to Muon; everything else (also in- and output layers) to AdamW. `names`:
    of these parameters only."""
    matrices, vectors = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (names is None or name in names):
            hidden = parameter.ndim >= 2 and not any(part in name for part in OUTER)
            (matrices if hidden else vectors).append(parameter)
    return [
        {"params": matrices, "lr": matrix_lr, "matrix": True},
        {"params": vectors, "lr": vector_lr, "matrix": False},
    ]
