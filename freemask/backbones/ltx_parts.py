"""How LTX-Video reads prompts, and what it sees of a clip."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from freemask.backbones.codec import CausalCodec
from freemask.backbones.text import PaddedReader, T5Reader
from freemask.types import Text

CLEAN_TIME = 0.0  # for autoencoders that clean up as they decode: nothing is left to clean


class LtxReader(PaddedReader):
    """The network does not see the padding: a mask says which columns there are. The encoder does, except of `late`
    checkpoints."""

    def __init__(self, tokenizer: Any, encoder: Any, max_tokens: int, *, late: bool = False) -> None:
        super().__init__(tokenizer, encoder, max_tokens)
        self.late = late

    def __call__(self, prompt: str) -> Text:
        text = super().__call__(prompt)
        mask = (torch.arange(self.max_tokens) < text.length).to(text.tokens)
        return replace(text, more={"mask": mask})

    def _columns(self, ids: tuple[int, ...]) -> Float[Tensor, "l d"]:
        return T5Reader._columns(self, ids) if self.late else super()._columns(ids)


class LtxCodec(CausalCodec):
    """Since 0.9.1 its decoder is told a time, and adds noise of its own: always the same here."""

    def _decoded(self, own: Float[Tensor, "1 c lf lh lw"]) -> Float[Tensor, "1 3 f h w"]:
        time = torch.full((1,), CLEAN_TIME).to(own) if self.vae.config.timestep_conditioning else None
        with torch.random.fork_rng(devices=[own.device] if own.is_cuda else []):
            torch.manual_seed(0)
            return self.vae.decode(own, time).sample
