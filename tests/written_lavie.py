"""LaVie's network written out from what is known of it, over its own weights by its own names: one clip, in loops."""

from math import log, sqrt

import torch
from torch import nn
from torch.nn.functional import conv2d, gelu, group_norm, interpolate, layer_norm, linear, silu

GROUPS, HEADS = 4, 2


class Written:
    """`weights` by the names of the authors' file; `widths` of the four levels, of which the last has no attention."""

    def __init__(self, weights, widths):
        self.weights, self.widths = weights, widths

    def __call__(self, x, t, text):
        """`x`: f 4 h w; `text`: l d."""
        width = self.widths[0]
        rates = torch.exp(
            -log(10000) * torch.arange(width // 2) / (width // 2)
        )  # in single precision, as the library
        waves = torch.cat([torch.cos(t * rates), torch.sin(t * rates)])[None].to(x)
        self.time = self.layer(silu(self.layer(waves, "time_embedding.linear_1")), "time_embedding.linear_2")
        self.text = text
        x = self.conv(x, "conv_in")
        skips = [x]
        for level in range(4):
            for i in range(2):
                x = self.resnet(x, f"down_blocks.{level}.resnets.{i}")
                x = self.transformer(x, f"down_blocks.{level}.attentions.{i}") if level < 3 else x
                skips.append(x)
            if level < 3:
                x = self.conv(x, f"down_blocks.{level}.downsamplers.0.conv", stride=2)
                skips.append(x)
        x = self.resnet(x, "mid_block.resnets.0")
        x = self.resnet(self.transformer(x, "mid_block.attentions.0"), "mid_block.resnets.1")
        for level in range(4):
            for i in range(3):
                x = self.resnet(torch.cat([x, skips.pop()], 1), f"up_blocks.{level}.resnets.{i}")
                x = self.transformer(x, f"up_blocks.{level}.attentions.{i}") if level > 0 else x
            if level < 3:
                larger = interpolate(x, size=skips[-1].shape[-2:], mode="nearest")
                x = self.conv(larger, f"up_blocks.{level}.upsamplers.0.conv")
        return self.conv(silu(self.over_the_clip(x, "conv_norm_out")), "conv_out")

    def layer(self, x, name):
        return linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def normed(self, x, name):
        return layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def conv(self, x, name, stride=1):
        weight = self.weights[f"{name}.weight"]
        return conv2d(x, weight, self.weights[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def over_the_clip(self, x, name, eps=1e-5):
        """Mean and variance of a group are those of all frames."""
        whole = x.movedim(0, 1)[None]  # 1 c f h w
        parts = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return group_norm(whole, GROUPS, *parts, eps)[0].movedim(1, 0)

    def resnet(self, x, name):
        y = self.conv(silu(self.over_the_clip(x, f"{name}.norm1")), f"{name}.conv1")
        y = y + self.layer(silu(self.time), f"{name}.time_emb_proj")[:, :, None, None]
        y = self.conv(silu(self.over_the_clip(y, f"{name}.norm2")), f"{name}.conv2")
        shortcut = f"{name}.conv_shortcut"
        return y + (self.conv(x, shortcut) if f"{shortcut}.weight" in self.weights else x)

    def transformer(self, x, name):
        frames, channels, height, width = x.shape
        parts = self.weights[f"{name}.norm.weight"], self.weights[f"{name}.norm.bias"]
        y = self.conv(group_norm(x, GROUPS, *parts, 1e-6), f"{name}.proj_in")
        y = y.flatten(2).movedim(1, 2)  # f n c
        block = f"{name}.transformer_blocks.0"
        z = self.normed(y, f"{block}.norm1")
        y = y + torch.stack([self.attention(each, each, f"{block}.attn1") for each in z])
        z = self.normed(y, f"{block}.norm2")
        y = y + torch.stack([self.attention(each, self.text, f"{block}.attn2") for each in z])
        z = self.normed(y, f"{block}.norm_temp")
        y = y + torch.stack([self.along(z[:, place], f"{block}.attn_temp") for place in range(z.shape[1])], 1)
        wide = self.layer(self.normed(y, f"{block}.norm3"), f"{block}.ff.net.0.proj")
        half = wide.shape[-1] // 2
        y = y + self.layer(wide[..., :half] * gelu(wide[..., half:]), f"{block}.ff.net.2")
        y = y.movedim(2, 1).reshape(frames, channels, height, width)
        return x + self.conv(y, f"{name}.proj_out")

    def attention(self, x, seen, name):
        q, k, v = (
            self.layer(x, f"{name}.to_q"),
            self.layer(seen, f"{name}.to_k"),
            self.layer(seen, f"{name}.to_v"),
        )
        heads = []
        for one in torch.arange(q.shape[-1]).chunk(HEADS):
            heads.append(torch.softmax(q[:, one] @ k[:, one].T / sqrt(len(one)), -1) @ v[:, one])
        return self.layer(torch.cat(heads, -1), f"{name}.to_out.0")

    def along(self, x, name):
        """One pixel's frames: every pair of channels is a complex number that turns, every distance has its number."""
        q, k, v = (self.layer(x, f"{name}.to_{each}") for each in "qkv")
        table = self.weights[f"{name}.time_rel_pos_bias.relative_attention_bias.weight"]
        rates = self.weights[f"{name}.rotary_emb.freqs"]
        kinds = torch.tensor([[kind(j - i) for j in range(len(x))] for i in range(len(x))])
        heads = []
        for head, one in enumerate(torch.arange(q.shape[-1]).chunk(HEADS)):
            turned = [
                self.turned(each[:, one] / (sqrt(len(one)) if each is q else 1), rates) for each in (q, k)
            ]
            logits = turned[0] @ turned[1].T + table[kinds, head]
            heads.append(torch.softmax(logits, -1) @ v[:, one])
        return self.layer(torch.cat(heads, -1), f"{name}.to_out.0")

    def turned(self, x, rates):
        count = 2 * len(rates)
        numbers = torch.view_as_complex(x[:, :count].reshape(len(x), -1, 2).contiguous())
        turns = torch.polar(
            torch.ones(len(x), len(rates), dtype=x.dtype), torch.arange(len(x))[:, None] * rates
        )
        return torch.cat([torch.view_as_real(numbers * turns).flatten(1), x[:, count:]], 1)


# Distances to earlier frames from 0 on; what lies beyond is the last. Later ones have 16 more.
KINDS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 12]


def kind(distance):
    return KINDS[abs(distance)] + (16 if distance > 0 else 0)


class Shapes(dict):
    """Every weight of the file, with its shape."""

    def __init__(self, widths, text):
        super().__init__()
        self.text, self.wave = text, 4 * widths[0]
        self.layer("conv_in", 4, widths[0], size=(3, 3))
        self.layer("time_embedding.linear_1", widths[0], self.wave)
        self.layer("time_embedding.linear_2", self.wave, self.wave)
        skips = self.down(widths)
        for i in range(2):
            self.resnet(f"mid_block.resnets.{i}", widths[-1], widths[-1])
        self.transformer("mid_block.attentions.0", widths[-1])
        self.up(widths, skips)
        self.norm("conv_norm_out", widths[0])
        self.layer("conv_out", widths[0], 4, size=(3, 3))

    def down(self, widths):
        skips, inner = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            for i in range(2):
                self.resnet(f"down_blocks.{level}.resnets.{i}", inner, width)
                if level < 3:
                    self.transformer(f"down_blocks.{level}.attentions.{i}", width)
                inner = width
                skips.append(width)
            if level < 3:
                self.layer(f"down_blocks.{level}.downsamplers.0.conv", width, width, size=(3, 3))
                skips.append(width)
        return skips

    def up(self, widths, skips):
        inner = widths[-1]
        for level, width in enumerate(reversed(widths)):
            for i in range(3):
                self.resnet(f"up_blocks.{level}.resnets.{i}", inner + skips.pop(), width)
                inner = width
                if level > 0:
                    self.transformer(f"up_blocks.{level}.attentions.{i}", width)
            if level < 3:
                self.layer(f"up_blocks.{level}.upsamplers.0.conv", width, width, size=(3, 3))

    def layer(self, name, inner, outer, bias=True, size=()):
        self[f"{name}.weight"] = (outer, inner, *size)
        if bias:
            self[f"{name}.bias"] = (outer,)

    def norm(self, name, width):
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)

    def resnet(self, name, inner, outer):
        self.norm(f"{name}.norm1", inner)
        self.layer(f"{name}.conv1", inner, outer, size=(3, 3))
        self.layer(f"{name}.time_emb_proj", self.wave, outer)
        self.norm(f"{name}.norm2", outer)
        self.layer(f"{name}.conv2", outer, outer, size=(3, 3))
        if inner != outer:
            self.layer(f"{name}.conv_shortcut", inner, outer, size=(1, 1))

    def transformer(self, name, width):
        self.norm(f"{name}.norm", width)
        self.layer(f"{name}.proj_in", width, width, size=(1, 1))
        self.layer(f"{name}.proj_out", width, width, size=(1, 1))
        block = f"{name}.transformer_blocks.0"
        for each, seen in (("attn1", width), ("attn2", self.text), ("attn_temp", width)):
            self.layer(f"{block}.{each}.to_q", width, width, False)
            self.layer(f"{block}.{each}.to_k", seen, width, False)
            self.layer(f"{block}.{each}.to_v", seen, width, False)
            self.layer(f"{block}.{each}.to_out.0", width, width)
        for each in ("norm1", "norm2", "norm3", "norm_temp"):
            self.norm(f"{block}.{each}", width)
        self.layer(f"{block}.ff.net.0.proj", width, 8 * width)
        self.layer(f"{block}.ff.net.2", 4 * width, width)
        self[f"{block}.attn_temp.time_rel_pos_bias.relative_attention_bias.weight"] = (32, HEADS)
        self[f"{block}.attn_temp.rotary_emb.freqs"] = (16,)


def drawn(widths, text, seed=0):
    rng, weights = torch.Generator().manual_seed(seed), {}
    for name, shape in Shapes(widths, text).items():
        if name.endswith("freqs"):
            weights[name] = torch.tensor([10000 ** (-2 * m / 32) for m in range(16)], dtype=torch.float64)
            continue
        made = torch.randn(shape, generator=rng, dtype=torch.float64)
        fan = nn.init._calculate_fan_in_and_fan_out(made)[0] if made.ndim > 1 else 1
        scale = 1 if "relative_attention_bias" in name else (0.1 if made.ndim == 1 else fan**-0.5)
        weights[name] = made * scale + (1 if made.ndim == 1 and "norm" in name and "weight" in name else 0)
    return weights
