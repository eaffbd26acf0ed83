"""Which words an edit is about, read off two prompts that come without them (benchmarks list captions only)."""

import difflib

from freemask.words import bare

# Words at a phrase's ends that stand for no object.
FUNCTION = set(
    [
        "a",
        "an",
        "the",
        "and",
        "or",
        "is",
        "are",
        "was",
        "were",
        "be",
        "being",
        "with",
        "without",
        "of",
        "in",
        "on",
    ]
    + ["at", "to", "by", "from", "into", "his", "her", "its", "their"]
)


def edited_words(source: str, target: str) -> dict[str, str]:
    """Phrases of the source that the target replaces or leaves out (-> ''), without function words at their ends.

    What the target only adds has no source word and is not there.
    """
    old, new = ([bare(word) for word in prompt.split()] for prompt in (source, target))
    folded = ([word.casefold() for word in words] for words in (old, new))
    steps = difflib.SequenceMatcher(None, *folded, autojunk=False).get_opcodes()
    pairs: dict[str, str] = {}
    for kind, a, b, c, d in steps:
        if kind in ("replace", "delete") and (phrase := trimmed(old[a:b])):
            pairs.setdefault(phrase, trimmed(new[c:d]))
    return pairs


def trimmed(words: list[str]) -> str:
    """A phrase without function words at its ends."""
    while words and (not words[0] or words[0].casefold() in FUNCTION):
        words = words[1:]
    while words and (not words[-1] or words[-1].casefold() in FUNCTION):
        words = words[:-1]
    return " ".join(words)
