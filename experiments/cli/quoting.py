"""Write a text as a Hydra override that arrives unchanged, whatever characters it holds."""

import re
from collections.abc import Sequence

import yaml

from freemask.errors import UserError


def quoted(key: str, text: str) -> str:
    """`key='...'` in Hydra's grammar. Two layers are escaped: OmegaConf's `${` and then Hydra's quotes."""
    if text == "???":
        raise UserError(f"'{key}' cannot be ???", came="???", expected="a text", todo="add a blank or a word")
    return f"{key}={_single(text)}"


def listed(key: str, text: str) -> str:
    """`{name: [override, ...]}` as one writes it in YAML; Hydra's grammar wants a quote around each override.

    YAML itself cannot read it, as an override may hold a list: `{two: [frames=[2,4], seed=1]}`. What cannot be read
    goes on as it is: Hydra or `variants.py` say what is wrong."""
    named = _named(text)
    if named is None:
        return f"{key}={text}"
    lists = (f"{name}:[{','.join(map(_single, overrides))}]" for name, overrides in named.items())
    return f"{key}={{{','.join(lists)}}}"


def _named(text: str) -> dict[str, list[str]] | None:
    found = {}
    for entry in _parts(_inside(text, "{}")):
        name, _, overrides = entry.partition(":")
        found[_bare(name)] = [_bare(each) for each in _parts(_inside(overrides, "[]"))]
    plain = all(re.fullmatch(r"[\w.+-]+", name) for name in found)
    return found if found and plain and all(map(_overrides, found.values())) else None


def _overrides(parts: Sequence[str]) -> bool:
    return bool(parts) and all("=" in part or part.startswith("~") for part in parts)


def _inside(text: str, pair: str) -> str:
    text = text.strip()
    return text[1:-1] if text[:1] + text[-1:] == pair else ""


def _parts(text: str) -> list[str]:
    """Split at the commas that no bracket and no quote encloses; nothing where those do not pair up."""
    parts, open_, quote, before = [""], "", "", ","
    for sign in text:
        if quote:
            quote = "" if sign == quote and before != "\\" else quote
        elif sign in "'\"" and before in "=:,[{ ":
            quote = sign
        elif sign in "[{":
            open_ += sign
        elif sign in "]}":
            if open_[-1:] + sign not in ("[]", "{}"):
                return []
            open_ = open_[:-1]
        elif sign == "," and not open_:
            parts.append("")
        if sign != "," or open_ or quote:
            parts[-1] += sign
        before = sign
    return [part.strip() for part in parts if part.strip()] if not (open_ or quote) else []


def _bare(text: str) -> str:
    """Without the quotes around it; nothing where they are no YAML."""
    text = text.strip()
    if text[:1] not in ("'", '"'):
        return text
    try:
        return str(yaml.safe_load(text))
    except yaml.YAMLError:
        return ""


def _single(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString  # help and completion do without

    return QuotedString(text=_without_interpolation(text), quote=Quote.single).with_quotes()


def _without_interpolation(text: str) -> str:
    # OmegaConf reads backslashes as escapes only right before `${`.
    return re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + r"\${", text)
