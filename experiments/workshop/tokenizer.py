"""The tokenizer of the embedded models: CLIP's byte-pair scheme with merges for the world's words only."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from freemask.data.world.spec import BACKGROUNDS, CLASSES, COLORS, MOTIONS, PARTS, STYLES

START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"
MAX_TOKENS = 77
SPECIAL = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": PAD}


def world_words() -> list[str]:
    """Every word that a caption of the world can hold."""
    phrases = [*CLASSES, *COLORS, *BACKGROUNDS.values(), *MOTIONS, *STYLES.values(), *PARTS.values()]
    return sorted({word for phrase in [*phrases, "a an and with"] for word in phrase.split()})


def _bytes_as_letters() -> list[str]:
    """The printable stand-ins for the 256 bytes, in the order of byte-level BPE."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(b) for b in plain]
    return letters + [chr(256 + i) for i in range(256 - len(plain))]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merge the most frequent pair (ties: alphabetically) until every word is one token."""
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges: list[tuple[str, str]] = []
    while any(len(p) > 1 for p in pieces.values()):
        pairs = Counter(pair for p in pieces.values() for pair in zip(p, p[1:], strict=False))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, p in pieces.items():
            joined, i = [], 0
            while i < len(p):
                pair = tuple(p[i : i + 2]) == best
                joined.append("".join(best) if pair else p[i])
                i += 2 if pair else 1
            pieces[word] = joined
    return merges


@cache
def vocabulary() -> dict[str, int]:
    letters, merged = _bytes_as_letters(), map("".join, learn_merges(world_words()))
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, START, END]
    return {token: i for i, token in enumerate(tokens)}


def token_ids(captions: Sequence[str], length: int = MAX_TOKENS) -> Int[Tensor, "n l"]:
    """Every word of a caption is one token, so a dictionary does what the tokenizer would."""
    known = vocabulary()
    rows = torch.full((len(captions), length), known[PAD])
    for row, caption in zip(rows, captions, strict=True):
        tokens = [START, *(word + "</w>" for word in caption.split()), END]
        row[: len(tokens)] = torch.tensor([known[token] for token in tokens])
    return rows


def write_tokenizer(folder: Path) -> int:
    """Write vocab.json, merges.txt and the configuration; returns the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(), ensure_ascii=False))
    lines = ["#version: 0.2", *map(" ".join, learn_merges(world_words()))]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | SPECIAL, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL, indent=2) + "\n")
    return len(vocabulary())
