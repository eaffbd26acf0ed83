"""Gated layers of GLIGEN (Li et al., 2023) in an image network: boxes, and what is said of what is in each, are read
beside the visual tokens, between self-attention and text attention."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from freemask.attention.processor import Call, SiteProcessor, Slot
from freemask.backbones.given import must_be, must_lie
from freemask.errors import UserError
from freemask.types import Entry, Site, Taps

MOST = 30  # things in a frame, as the network was taught: those that are not there count too, as nothing
BOXES, PHRASES, GATES = "boxes", "phrases", "gates"
TAKES = {
    BOXES: f"f n 5: x0 y0 x1 y1 in 0..1, and 1 where there is such a thing; at most {MOST}, none where it is left out",
    PHRASES: "f n d: for each box the last token of what is said of it",
    GATES: "how far gates are open, 0 to 1; 1 where there are boxes, otherwise 0",
}
KIND, INSIDE = "gated", ".fuser.attn"


@dataclass(frozen=True)
class Gated:
    """What a network is given of boxes. Layers that its taps do not hear: frames look at each other in them as in the
    self-attention beside them."""

    width: int

    @classmethod
    def of(cls, unet: Any) -> "Gated | None":
        net = getattr(unet, "position_net", None)
        return None if net is None else cls(int(net.positive_len))

    def completed(self, parts: Mapping[str, Tensor], x: Float[Tensor, "lf c lh lw"]) -> Mapping[str, Tensor]:
        """What one stream is given: checked, and filled up with things that are not there."""
        there, frames = BOXES in parts, len(x)
        boxes = parts.get(BOXES, torch.zeros(frames, 0, 5))
        phrases = parts.get(PHRASES, torch.zeros(frames, 0, self.width))
        must_be(BOXES, boxes, "frames, things, corners and whether it is there", (frames, None, 5))
        must_be(PHRASES, phrases, "frames, things, width", (frames, boxes.shape[1], self.width))
        if boxes.numel():
            must_lie(BOXES, boxes, 0, 1)
        if boxes.shape[1] > MOST:
            raise UserError(
                "These are more things than gated layers were taught to see at once.",
                came=f"{boxes.shape[1]} boxes in a frame",
                expected=f"at most {MOST}",
            )
        gates = parts.get(GATES, torch.tensor(float(there)))
        must_be(GATES, gates, "one number", ())
        must_lie(GATES, gates, 0, 1)
        fill = (0, 0, 0, MOST - boxes.shape[1])
        made = {BOXES: pad(boxes, fill), PHRASES: pad(phrases, fill), GATES: gates}
        return {**parts, **{name: each.to(x.device, x.dtype) for name, each in made.items()}}

    def asked(self, parts: Mapping[str, Tensor], call: Call) -> dict[str, Any]:
        """What the network is to be called with; nothing where all gates are shut."""
        if not bool(parts[GATES].any()):
            return {}
        frames = call.frames
        call.gates = parts[GATES].repeat_interleave(frames)[:, None, None]
        boxes, phrases = (rearrange(parts[name], "s f n c -> (s f) n c") for name in (BOXES, PHRASES))
        told = {"boxes": boxes[..., :4], "masks": boxes[..., 4], "positive_embeddings": phrases}
        return {"cross_attention_kwargs": {"gligen": told}}


@dataclass
class Looking(Slot):
    """A call of which these layers know whom frames look at, and no other tap: they are not among the network's
    sites."""

    slot: Slot

    @property
    def call(self) -> Call:
        call = self.slot.call
        return replace(call, taps=Taps(look=call.taps.look))


def gates(slot: Slot) -> Any:
    """A gated layer that is open as far as the call says, for each row of its batch."""

    def forward(layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        share = slot.call.gates
        if share is None or bool((share == 1).all()):
            return None
        x, things = args
        seen = torch.cat([x, layer.linear(things)], dim=1)
        own = layer.attn(layer.norm1(seen))[:, : x.shape[1]]
        x = x + share * layer.alpha_attn.tanh() * own
        return x + share * layer.alpha_dense.tanh() * layer.ff(layer.norm2(x))

    return forward


def install(unet: Any, look: Any, slot: Slot) -> dict[str, SiteProcessor]:
    """Once, at construction: the processors of gated layers, by name. Their hooks are set."""
    found = {}
    for key in unet.attn_processors:
        name = key.removesuffix(".processor")
        if not name.endswith(INSIDE):
            continue
        entries: tuple[Entry, ...] = look(unet.get_submodule(name))
        found[key] = SiteProcessor(Site(name, "self", 1, look=entries), Looking(slot))
        unet.get_submodule(name.removesuffix(".attn")).register_forward_hook(gates(slot))
    return found
