"""Muon: momentum whose update is made orthogonal, for the matrices of a network (convolutions as flat matrices).

torch.optim.Muon takes two-axis parameters only; most of a U-Net's are convolutions. Vectors, embeddings and the
first and last layers stay with AdamW, in the same optimiser object so that checkpoints hold one state.
"""

from collections.abc import Callable, Container, Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of Jordan et al. 2024
MOMENTUM = 0.95
OUTER = ("conv_in", "conv_out", "embedding.weight", "position_embedding")


def orthogonal(matrix: Tensor) -> Tensor:
    """An approximately orthogonal matrix with the same singular vectors."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Groups with `matrix=True` get orthogonal updates, the others AdamW."""

    def __init__(self, groups: Iterable[dict]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._matrix if group["matrix"] else self._adam
                    parameter.add_(update(self.state[parameter], parameter.grad), alpha=-group["lr"])
        return loss

    def _matrix(self, state: dict, gradient: Tensor) -> Tensor:
        buffer = state.setdefault("momentum", torch.zeros_like(gradient))
        buffer.lerp_(gradient, 1 - MOMENTUM)
        look = gradient.lerp(buffer, MOMENTUM).flatten(1)
        factor = max(1.0, look.shape[0] / look.shape[1]) ** 0.5
        return orthogonal(look).view_as(gradient) * factor

    def _adam(self, state: dict, gradient: Tensor) -> Tensor:
        state["step"] = state.get("step", 0) + 1
        first = state.setdefault("first", torch.zeros_like(gradient))
        second = state.setdefault("second", torch.zeros_like(gradient))
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.02)
        bias1, bias2 = 1 - 0.9 ** state["step"], 1 - 0.98 ** state["step"]
        return (first / bias1) / ((second / bias2).sqrt() + 1e-8)


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
