"""Prompts as HunyuanVideo reads them: the layers of a language model within a sentence that asks for a description; and
for the first version a summary by CLIP."""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from freemask.backbones.text import check_offsets
from freemask.errors import UserError
from freemask.types import Text
from freemask.words import check_length, columns_of_prompt

# Of diffusers' pipelines, letter by letter.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
SYSTEM = f"{' ' * 9}".join(
    (
        "You are a helpful assistant. Describe the video by detailing the following aspects:",
        "1. The main content and theme of the video.",
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
        "4. background environment, light, style and atmosphere.",
        "5. camera angles, movements, and transitions used in the video.",
    )
)
SKIP = 2  # of the last layers, whose output is not used
PLACE = "\ufffc"  # stands where the prompt will stand


class Pair(NamedTuple):
    """A tokenizer and its encoder."""

    tokenizer: Any
    encoder: Any


class SentenceReader:
    """Columns behind the end mark are zeros, and are never looked at; `spare` ones are not of this text at all."""

    crop: ClassVar[int]  # so many tokens of the sentence are cut off
    spare: ClassVar[int] = 0

    def __init__(self, language: Pair, max_tokens: int) -> None:
        check_offsets(language.tokenizer)
        if max_tokens < 2:
            raise UserError(
                "max_tokens is the number of text columns.", came=max_tokens, expected="2 or more"
            )
        self.language, self.max_tokens = language, max_tokens
        language.encoder.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "SentenceReader":
        self.language.encoder.to(device)
        return self

    @torch.no_grad()
    def __call__(self, prompt: str) -> Text:
        asked, first = self._sentence(prompt)
        read = self.language.tokenizer(asked, return_offsets_mapping=True, verbose=False)
        ids = torch.tensor([read["input_ids"]], device=self.language.encoder.device)
        length = ids.shape[1] - self.crop
        check_length(prompt, length, self.max_tokens)
        layers = self.language.encoder(ids, output_hidden_states=True).hidden_states
        lacking = self.max_tokens + self.spare - length
        spans = tuple(_within(prompt, a - first, b - first) for a, b in read["offset_mapping"][self.crop :])
        return Text(
            prompt,
            pad(layers[-1 - SKIP][0, self.crop :], (0, 0, 0, lacking)),
            columns_of_prompt(prompt, spans),
            length,
            tuple(ids[0, self.crop :].tolist()),
            spans,
            {"mask": pad(torch.ones(length), (0, lacking)), **self._more(prompt)},
        )

    def _sentence(self, prompt: str) -> tuple[str, int]:
        """What the language model is asked, and where the prompt begins in it."""
        raise NotImplementedError

    def _more(self, prompt: str) -> dict[str, Tensor]:
        return {}


class HunyuanReader(SentenceReader):
    """`pooled` is CLIP's summary, of as many tokens as it reads."""

    crop = 95

    def __init__(self, language: Pair, clip: Pair, max_tokens: int) -> None:
        super().__init__(language, max_tokens)
        self.clip = clip
        clip.encoder.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "HunyuanReader":
        self.clip.encoder.to(device)
        super().to(device)
        return self

    def _sentence(self, prompt: str) -> tuple[str, int]:
        return TEMPLATE.format(prompt), TEMPLATE.index("{}")

    def _more(self, prompt: str) -> dict[str, Tensor]:
        tokenizer, encoder = self.clip
        most = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
        read = tokenizer(
            prompt, padding="max_length", max_length=most, truncation=True, return_tensors="pt", verbose=False
        )
        return {"pooled": encoder(read["input_ids"].to(encoder.device)).pooler_output[0]}


class Hunyuan15Reader(SentenceReader):
    """A conversation, as the tokenizer's own template writes it. Another encoder would read words in quotation marks,
    which are to be drawn as letters: they are not served. The two spare columns are those of such letters, and of a
    picture."""

    crop = 108
    spare = 2

    def _sentence(self, prompt: str) -> tuple[str, int]:
        if any(mark in prompt for mark in '"“”'):
            raise UserError(
                "This model would draw words in quotation marks as letters, which is not run yet.",
                came=prompt,
                expected="a prompt without double quotation marks",
            )
        first = self._written(PLACE).index(PLACE)
        return self._written(prompt or " "), first

    def _written(self, prompt: str) -> str:
        said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
        return self.language.tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)


def _within(prompt: str, start: int, end: int) -> tuple[int, int]:
    """Of the prompt, what a token stands for; nothing where it is one of the sentence around it."""
    inside = start >= 0 and end <= len(prompt)
    return (start, end) if inside else (0, 0)
