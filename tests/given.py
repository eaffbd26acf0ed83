"""Texts as tensors, given to streams by name."""

from freemask.types import Given


def given(texts, streams):
    """One text for each stream, from a stack of them."""
    assert len(texts) == len(streams)
    return {stream: Given({"text": text}) for stream, text in zip(streams, texts, strict=True)}
