"""The tokenizer of the embedded models: CLIP's byte-pair scheme with merges for the world's words only."""

import json
from collections import Counter
from pathlib import Path

from freemask.data.world.spec import BACKGROUNDS, CLASSES, COLORS, MOTIONS, PARTS, STYLES

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77


def world_words() -> list[str]:
    """Every word that a caption of the world can hold."""
    phrases = [
        *CLASSES,
        *COLORS,
        *BACKGROUNDS.values(),
        *MOTIONS,
        *STYLES.values(),
        *PARTS.values(),
        "a an and with",
    ]
    return sorted({word for phrase in phrases for word in phrase.split()})


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


def write_tokenizer(folder: Path) -> int:
    """Write vocab.json, merges.txt and the configuration; returns the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(world_words())
    letters = _bytes_as_letters()
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": "!",
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {key: config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return len(vocabulary)
