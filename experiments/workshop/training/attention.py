"""Attention for training on a CPU: two matrix products and a softmax beat the fused kernel's backward pass there."""

from typing import Any

from torch import Tensor


class PlainAttention:
    """A processor in diffusers' form, without masks and group norms: the embedded networks have neither."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, tokens, _channels = hidden_states.shape

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, x.shape[1], attn.heads, -1).transpose(1, 2)

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        weights = ((q * attn.scale) @ k.transpose(-1, -2)).softmax(-1)
        return attn.to_out[0]((weights @ v).transpose(1, 2).reshape(batch, tokens, -1))


def use_plain_attention(network: Any) -> None:
    network.set_attn_processor(PlainAttention())
