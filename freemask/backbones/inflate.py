"""Frames inside an image network: group norms over the whole clip, and temporal layers behind its own layers."""

from collections.abc import Iterable, Iterator
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from freemask.attention.processor import Slot


class LowRankConv(nn.Module):
    """x + up(down(x)), two convolutions along frames."""

    def __init__(self, channels: int, rank: int, kernel: int = 3) -> None:
        super().__init__()
        self.down = nn.Conv1d(channels, rank, kernel, padding=kernel // 2, bias=False)
        self.up = nn.Conv1d(rank, channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))


def norms(unet: nn.Module) -> Iterator[nn.GroupNorm]:
    """Those of the convolution blocks and of the output. The ones of transformers stay frame by frame."""
    for name, module in unet.named_modules():
        if isinstance(module, nn.GroupNorm) and ".attentions." not in name:
            yield module


def share(norm: nn.GroupNorm, slot: Slot) -> None:
    """Mean and variance over all frames of a stream: frames become rows of one tall picture, and frames again."""

    def join(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        frames = slot.call.frames
        return (rearrange(args[0], "(s f) c h w -> s c (f h) w", f=frames),) if frames > 1 else None

    def part(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        frames = slot.call.frames
        return rearrange(output, "s c (f h) w -> (s f) c h w", f=frames) if frames > 1 else None

    norm.register_forward_pre_hook(join)
    norm.register_forward_hook(part)


def serve_temporal(modules: Iterable[nn.Module], slot: Slot) -> list[Any]:
    """Hooks that run `conv_temporal` behind its convolution and `attn_temporal` behind its block."""
    hooks: list[Any] = []
    for module in modules:
        if hasattr(module, "conv_temporal"):
            hooks.append(
                module.register_forward_hook(_after_conv(slot), prepend=True)
            )  # part of the convolution
        if hasattr(module, "attn_temporal"):
            hooks.append(module.register_forward_hook(_after_block(slot)))
    return hooks


def _after_conv(slot: Slot) -> Any:
    def run(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        frames, (height, width) = slot.call.frames, output.shape[-2:]
        rows = rearrange(output, "(s f) c h w -> (s h w) c f", f=frames)
        rows = module.get_submodule("conv_temporal")(rows)
        return rearrange(rows, "(s h w) c f -> (s f) c h w", h=height, w=width)

    return run


def _after_block(slot: Slot) -> Any:
    def run(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        rows = rearrange(output, "(s f) n c -> (s n) f c", f=slot.call.frames)
        normed = module.get_submodule("norm_temporal")(rows)
        rows = module.get_submodule("attn_temporal")(normed) + rows
        return rearrange(rows, "(s n) f c -> (s f) n c", n=output.shape[1])

    return run
