"""The job that teaches the embedded transformer: flow matching, on single frames or on clips."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from experiments.workshop.diffusion import Diffusion
from experiments.workshop.networks import SHIPPED
from experiments.workshop.tokenizer import END, vocabulary
from freemask.diffusion.flow import Flow

COLUMNS = 32  # of text, as `max_tokens` of conf/model/embedded_dit.yaml
EVEN = 0.1  # share of the levels that are drawn evenly
EDGE = 1e-3  # of the quantiles of a normal: their logistic lies between .04 and .96


class FlowMatching(Diffusion):
    """A velocity from clean to noise, at levels that are mostly in the middle. The text encoder stays as the image
    stage left it; behind the end mark the network sees zeros, as Wan does."""

    taught = ("transformer",)
    table: Tensor

    def __init__(
        self,
        transformer: Any,
        encoder: Any,
        latents: Tensor,
        captions: Sequence[str],
        *,
        batch: int,
        frames: int,
    ) -> None:
        super().__init__(latents, captions, batch=batch, frames=frames)
        self.transformer = transformer
        told = json.loads((SHIPPED / "dit/scheduler/scheduler_config.json").read_text())
        self.times = Flow.from_config(told).train_times
        with torch.no_grad():
            read = [encoder(each).last_hidden_state.half() for each in self.ids.split(256)]
        behind = (self.ids == vocabulary()[END]).cumsum(dim=1).cumsum(dim=1) > 1
        if not behind[:, COLUMNS:].all():
            raise ValueError(f"a caption has more than {COLUMNS} tokens")
        table = torch.cat(read).masked_fill(behind[..., None], 0)[:, :COLUMNS]
        self.register_buffer("table", table.clone(), persistent=False)

    def groups(self, matrix_lr: float, vector_lr: float) -> list[dict]:
        """Matrices within the blocks are orthogonal's; what leads in and out, times and tables are Adam's."""
        inner, outer = [], []
        for name, each in self.transformer.named_parameters():
            (inner if name.startswith("blocks.") and each.ndim == 2 else outer).append(each)
        return [
            {"params": inner, "lr": matrix_lr, "matrix": True},
            {"params": outer, "lr": vector_lr, "matrix": False},
        ]

    def texts(self, places: Tensor) -> Tensor:
        return self.table[places].float()

    def noised(self, clean: Tensor, rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Levels are stratified over the batch: the logistic of a normal, some of them even."""
        count, where = len(clean), {"generator": rng, "device": clean.device}
        strata = (torch.arange(count, device=clean.device) + torch.rand(count, **where)) / count
        middle = torch.special.ndtri(strata.clamp(EDGE, 1 - EDGE)).sigmoid()
        even = torch.rand(count, **where)
        level = torch.where(torch.rand(count, **where) < EVEN, even, middle)
        noise, share = torch.randn(clean.shape, **where), level[:, None, None, None, None]
        return (1 - share) * clean + share * noise, noise - clean, level * self.times

    def predict(self, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:
        """Where frames share a cell, the last one is repeated until all cells are full, as in use."""
        frames, deep = noisy.shape[1], self.transformer.config.patch_size[0]
        whole = torch.cat([noisy, noisy[:, -1:].expand(-1, -frames % deep, -1, -1, -1)], dim=1)
        out = self.transformer(whole.transpose(1, 2), t, texts, return_dict=False)[0]
        return out.transpose(1, 2)[:, :frames]
