"""The layers of a network in forms that compute the same sooner: numbers differ by rounding alone.

On a processor (float32, no gradients wanted) matrix products and convolutions go to oneDNN, which is included in torch
but is asked by torch itself only now and then: MKL, which is asked instead, uses half of what processors of other
makers can do. What hooks see and change stays as it is; inside a layer that goes in pieces, they see piece by piece.
"""

from functools import cache
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

ACTIVATION = {"none": ("none", [], ""), "gelu": ("gelu", [], "none")}

# Products of numbers in one call, below which its start costs more than it saves (measured with one and two threads).
WORTH_A_PRODUCT = 2_000_000
WORTH_A_CONVOLUTION = 3_000_000
PIECE = 2**25  # numbers of the widest map of a feed-forward layer that exist at once


def quicken(network: nn.Module) -> None:
    """Weights, names and hooks stay. A layer of a class that is not known here stays as well."""
    for layer in network.modules():
        form = FORMS.get(type(layer))
        if form is not None:
            layer.__class__ = form
    if isinstance(network, ModelMixin) and not network._keep_in_fp32_modules:
        network.__class__ = _of_known_dtype(type(network))


class QuickLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class QuickConv3d(nn.Conv3d):
    """Those along frames: torch's own way on a processor unfolds the whole clip first."""

    def forward(self, input: Tensor) -> Tensor:
        small = input.ndim != 5 or _work(input, self.weight) < WORTH_A_CONVOLUTION
        if small or not _can(input) or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return super().forward(input)
        return torch.mkldnn_convolution(
            input, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


class QuickGEGLU(GEGLU):
    """The gate in one go with its activation, the product with the other half in one go with its layer. Not where
    somebody has put another layer in the place of the one inside, which may do more than its weight says."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        small = _work(hidden_states, self.proj.weight) < WORTH_A_PRODUCT
        if small or not _can(hidden_states) or type(self.proj) is not QuickLinear or hooked(self.proj):
            return super().forward(hidden_states, *args, **kwargs)
        weight, bias = self.proj.weight.chunk(2), (None, None)
        if self.proj.bias is not None:
            bias = self.proj.bias.chunk(2)
        gate = _product(hidden_states, weight[1], bias[1], "gelu")
        return _product(hidden_states, weight[0], bias[0]).mul_(gate)


class QuickFeedForward(FeedForward):
    """In pieces where its widest maps would be large: in long clips, those of the first layer along frames are the peak
    of all memory. Rows know nothing of each other."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        whole, run = hidden_states, super().forward
        if torch.is_grad_enabled():
            return run(whole, *args, **kwargs)
        widest = max(layer.out_features for layer in self.modules() if isinstance(layer, nn.Linear))
        count = min(len(whole), -(-(whole.numel() // whole.shape[-1]) * widest // PIECE))
        if count <= 1:
            return run(whole, *args, **kwargs)
        return torch.cat([run(piece, *args, **kwargs) for piece in whole.chunk(count)])


class QuickAttention(Attention):
    """Without the library's look at what arguments its processor takes, at every call."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Any:  # a pair where text and video look at each other
        if more:
            return super().forward(hidden_states, encoder_hidden_states, attention_mask, **more)
        text, mask = encoder_hidden_states, attention_mask
        return self.processor(self, hidden_states, encoder_hidden_states=text, attention_mask=mask)  # pyright: ignore


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: QuickLinear,
    nn.Conv3d: QuickConv3d,
    GEGLU: QuickGEGLU,
    FeedForward: QuickFeedForward,
    Attention: QuickAttention,
}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _work(x, weight) < WORTH_A_PRODUCT or not _can(x):
        return nn.functional.linear(x, weight, bias)
    return _product(x, weight, bias)


def hooked(layer: nn.Module) -> bool:
    """Whether somebody wants to see what goes into this layer or comes out."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _work(x: Tensor, weight: Tensor) -> int:
    """How many products of numbers: each number of `x` meets a row of weights (of a convolution: at each place)."""
    return x.numel() * (weight.numel() // weight.shape[1])


def _can(x: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and _has_onednn()


@cache
def _has_onednn() -> bool:
    """Of this build of torch, on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    try:
        found = [_product(x, weight, None, kind) for kind in ACTIVATION]
    except (AttributeError, RuntimeError):  # another release of torch, or a build without it
        return False
    expected = [torch.nn.functional.linear(x, weight), torch.nn.functional.gelu(torch.full((2, 4), 3.0))]
    return all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(found, expected, strict=True))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *ACTIVATION[activation])


@cache
def _of_known_dtype(kind: type[ModelMixin]) -> type[ModelMixin]:
    """The library walks through all modules to tell the dtype, at every call."""

    def dtype(self: nn.Module) -> torch.dtype:
        return next(weight.dtype for weight in self.parameters() if weight.is_floating_point())

    return type(kind.__name__, (kind,), {"dtype": property(dtype), "__module__": kind.__module__})
