"""Prompts to text embeddings, with the token columns of each word."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from freemask.errors import UserError
from freemask.types import Text
from freemask.words import check_length, columns_of_prompt


class TextReader:
    """A tokenizer and a text encoder of transformers. `skip`: so many of its last layers are left out."""

    def __init__(self, tokenizer: Any, encoder: Any, skip: int = 0) -> None:
        check_offsets(tokenizer)
        self.tokenizer, self.encoder, self.skip = tokenizer, encoder.eval().requires_grad_(False), skip
        self.max_tokens = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))

    @torch.no_grad()
    def __call__(self, prompt: str) -> Text:
        read = self.tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        length = len(read["input_ids"])
        check_length(prompt, length, self.max_tokens)
        padded = self.tokenizer(prompt, padding="max_length", max_length=self.max_tokens, return_tensors="pt")
        hidden = self._read(padded["input_ids"].to(self.encoder.device))
        spans = tuple((int(start), int(end)) for start, end in read["offset_mapping"])
        return Text(
            prompt, hidden[0], columns_of_prompt(prompt, spans), length, tuple(read["input_ids"]), spans
        )

    def _read(self, ids: Tensor) -> Tensor:
        if self.skip == 0:
            return self.encoder(ids)[0]
        layers = self.encoder(ids, output_hidden_states=True).hidden_states
        inner = getattr(self.encoder, "text_model", self.encoder)  # transformers 4 has one more level
        return inner.final_layer_norm(layers[-1 - self.skip])


class T5Reader:
    """A tokenizer and a text encoder as Wan reads them: zeros behind the end mark, which attention sees like any other
    column. Wan's own is of the T5 family; CLIP's, which sees nothing behind a token either, will do."""

    def __init__(self, tokenizer: Any, encoder: Any, max_tokens: int) -> None:
        check_offsets(tokenizer)
        if max_tokens < 2:
            raise UserError(
                "max_tokens is the number of text columns.", came=max_tokens, expected="2 or more"
            )
        self.tokenizer, self.encoder = tokenizer, encoder.eval().requires_grad_(False)
        self.max_tokens = min(int(tokenizer.model_max_length), max_tokens)

    def to(self, device: torch.device) -> "T5Reader":
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def __call__(self, prompt: str) -> Text:
        read = self.tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        ids = tuple(read["input_ids"])
        check_length(prompt, len(ids), self.max_tokens)
        spans = tuple((int(start), int(end)) for start, end in read["offset_mapping"])
        return Text(prompt, self._columns(ids), columns_of_prompt(prompt, spans), len(ids), ids, spans)

    def _columns(self, ids: tuple[int, ...]) -> Float[Tensor, "l d"]:
        """Without padding in the encoder, where what comes behind the end mark changes nothing before it."""
        hidden = self.encoder(torch.tensor([ids], device=self.encoder.device))[0][0]
        return pad(hidden, (0, 0, 0, self.max_tokens - len(ids)))


class PaddedReader(T5Reader):
    """As CogVideoX reads: the encoder sees the padding, which changes what it says of the words, and all columns that
    it puts out are attended to."""

    def _columns(self, ids: tuple[int, ...]) -> Float[Tensor, "l d"]:
        padded = [*ids, *[self.tokenizer.pad_token_id] * (self.max_tokens - len(ids))]
        return self.encoder(torch.tensor([padded], device=self.encoder.device))[0][0]


def check_offsets(tokenizer: Any) -> None:
    if not tokenizer.is_fast:
        raise UserError(
            "The tokenizer does not say which characters its tokens stand for.",
            came=type(tokenizer).__name__,
            expected="a fast tokenizer of transformers 5",
        )
