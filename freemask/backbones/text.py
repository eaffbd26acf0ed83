"""Prompts to text embeddings, with the token columns of each word."""

from typing import Any

import torch

from freemask.errors import UserError
from freemask.types import Text
from freemask.words import check_length, columns_of_prompt


class TextReader:
    """A tokenizer and a text encoder of transformers."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                "The tokenizer does not say which characters its tokens stand for.",
                came=type(tokenizer).__name__,
                expected="a fast tokenizer of transformers 5",
            )
        self.tokenizer, self.encoder = tokenizer, encoder.eval().requires_grad_(False)
        self.max_tokens = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))

    @torch.no_grad()
    def __call__(self, prompt: str) -> Text:
        read = self.tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        length = len(read["input_ids"])
        check_length(prompt, length, self.max_tokens)
        padded = self.tokenizer(prompt, padding="max_length", max_length=self.max_tokens, return_tensors="pt")
        hidden = self.encoder(padded["input_ids"].to(self.encoder.device))[0]
        spans = tuple((int(start), int(end)) for start, end in read["offset_mapping"])
        return Text(
            prompt, hidden[0], columns_of_prompt(prompt, spans), length, tuple(read["input_ids"]), spans
        )
