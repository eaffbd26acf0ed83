"""The configuration that a user would type for a stored case."""

from collections.abc import Mapping
from typing import Any

from experiments.cli.quoting import quoted
from tests.official.case import Case, Edit


def model_overrides(case: Case) -> list[str]:
    return [
        "method=fatezero" if case.inflated else "method=freemask",
        "model=sd14" if case.inflated else "model=zeroscope",
        quoted("model.path", str(case.model)),
        "model.device=cpu",
        f"model.dtype={case.about.get('dtype', 'float32')}",
        *(inflation(case) if case.inflated else ()),
        f"method.steps={case.steps}",
        "method.inversions=null",
    ]


def inflation(case: Case) -> list[str]:
    """Attention across frames and temporal layers. Where the authors' configuration does not say, their code looks
    at the previous and the first frame, in every layer."""
    said = case.about["config"].get("model_config") or {}
    look = said.get("SparseCausalAttention_index", [-1, "first"])
    lines = [
        "model.attention=[" + ",".join(map(str, look)) + "]" if look else "model.attention=frame",
        f"model.least_channels={said.get('least_sc_channel') or 0}",
    ]
    temporal = case.temporal
    return [*lines, quoted("model.temporal", str(temporal))] if temporal is not None else lines


def edit_overrides(case: Case, edit: Edit) -> list[str]:
    """What a user types to get this edit."""
    lines = [
        *model_overrides(case),
        quoted("source", edit.source),
        quoted("target", edit.target),
        f"method.guidance={case.about['guidance_scale']}",
        f"task={edit.kind}",
    ]
    if not edit.controlled:
        return [*lines, "fusion=none", "mask=none"]
    masked = edit.blend_words is not None
    here = masked and bool(edit.said.get("blend_self_attention"))
    if case.inflated:
        return [*lines, *fatezero_overrides(edit), *mask_overrides(edit, "fatezero")]
    share, words = edit.windows()
    windows = f"task.windows.{edit.kind}"
    lines += [
        "fusion=official",
        f"fusion.control={'replace' if edit.said.get('is_replace_controller', True) else 'refine'}",
        f"fusion.temporal_by={'keys' if edit.by_keys else 'maps'}",
        f"fusion.temporal={'masked' if edit.by_keys and masked else 'plain'}",
        f"fusion.cross={'masked' if here else 'plain'}",
        f"fusion.self={'masked' if here else 'plain'}",
        f"fusion.latent={'masked' if masked and edit.said.get('blend_latents') else 'off'}",
        f"{windows}.cross={share}",
        f"{windows}.self={edit.said['self_replace_steps']}",
        f"{windows}.temporal={edit.said['temp_replace_steps']}",
        f"{windows}.latent=[0.2,0.8]",
    ]
    lines += pairs("fusion.reweight", edit.weights) + pairs("fusion.word_windows", words)
    return lines + mask_overrides(edit, "official")


def fatezero_overrides(edit: Edit) -> list[str]:
    masked = edit.blend_words is not None
    share, words = edit.windows()
    windows = f"fusion.windows.{edit.kind}"
    return [
        "fusion=fatezero",
        f"fusion.control={'replace' if edit.said.get('is_replace_controller', True) else 'refine'}",
        f"fusion.self={'masked' if masked and edit.said.get('blend_self_attention') else 'plain'}",
        f"fusion.latent={'masked' if masked and edit.said.get('blend_latents') else 'off'}",
        f"{windows}.cross={share}",
        f"{windows}.self={edit.said['self_replace_steps']}",
        f"{windows}.latent=[0.2,0.8]",
        *pairs("fusion.reweight", edit.weights),
        *pairs("fusion.word_windows", words),
    ]


def mask_overrides(edit: Edit, name: str) -> list[str]:
    if edit.blend_words is None:
        return ["mask=none"]
    source, target = edit.blend_words
    return [
        f"mask={name}",
        _texts("mask.source_words", source),
        _texts("mask.target_words", target),
        # The authors' code compares both prompts' values with the first threshold.
        f"mask.threshold=[{edit.threshold},{edit.threshold}]",
        "mask.missing=empty",
    ]


def pairs(key: str, words: Mapping[str, Any]) -> list[str]:
    """As a list of pairs, for a key of the command line cannot hold every word."""
    if not words:
        return []
    return [f"{key}=[" + ",".join(f"[{_text(word)},{value}]" for word, value in words.items()) + "]"]


def _texts(key: str, words: list[str]) -> str:
    return f"{key}=[" + ",".join(map(_text, words)) + "]"


def _text(word: str) -> str:
    return quoted("", word).removeprefix("=")
