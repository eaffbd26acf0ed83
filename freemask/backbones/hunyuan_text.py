"""Prompts as HunyuanVideo reads them: the layers of a language model within a sentence that asks for a description, and
a summary by CLIP."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from freemask.backbones.text import check_offsets
from freemask.errors import UserError
from freemask.types import Text
from freemask.words import check_length, columns_of_prompt

# Of diffusers' pipeline, letter by letter; so many tokens of it are cut off.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
CROP = 95
SKIP = 2  # of the last layers, whose output is not used


class Pair(NamedTuple):
    """A tokenizer and its encoder."""

    tokenizer: Any
    encoder: Any


class HunyuanReader:
    """Columns behind the end mark are zeros, and are never looked at. `pooled` is CLIP's summary, of as many tokens as
    it reads."""

    def __init__(self, language: Pair, clip: Pair, max_tokens: int) -> None:
        check_offsets(language.tokenizer)
        if max_tokens < 2:
            raise UserError(
                "max_tokens is the number of text columns.", came=max_tokens, expected="2 or more"
            )
        self.language, self.clip, self.max_tokens = language, clip, max_tokens
        for each in (language, clip):
            each.encoder.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "HunyuanReader":
        for each in (self.language, self.clip):
            each.encoder.to(device)
        return self

    @torch.no_grad()
    def __call__(self, prompt: str) -> Text:
        asked, first = TEMPLATE.format(prompt), TEMPLATE.index("{}")
        read = self.language.tokenizer(asked, return_offsets_mapping=True, verbose=False)
        ids = torch.tensor([read["input_ids"]], device=self.language.encoder.device)
        length = ids.shape[1] - CROP
        check_length(prompt, length, self.max_tokens)
        layers = self.language.encoder(ids, output_hidden_states=True).hidden_states
        lacking = self.max_tokens - length
        spans = tuple(_within(prompt, a - first, b - first) for a, b in read["offset_mapping"][CROP:])
        return Text(
            prompt,
            pad(layers[-1 - SKIP][0, CROP:], (0, 0, 0, lacking)),
            columns_of_prompt(prompt, spans),
            length,
            tuple(ids[0, CROP:].tolist()),
            spans,
            {"pooled": self._summary(prompt), "mask": pad(torch.ones(length), (0, lacking))},
        )

    def _summary(self, prompt: str) -> Tensor:
        tokenizer, encoder = self.clip
        most = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        read = tokenizer(
            prompt, padding="max_length", max_length=most, truncation=True, return_tensors="pt", verbose=False
        )
        return encoder(read["input_ids"].to(encoder.device)).pooler_output[0]


def _within(prompt: str, start: int, end: int) -> tuple[int, int]:
    """Of the prompt, what a token stands for; nothing where it is one of the sentence around it."""
    inside = start >= 0 and end <= len(prompt)
    return (start, end) if inside else (0, 0)
