"""Write a text as a Hydra override that arrives unchanged, whatever characters it holds."""

import re

import yaml
from hydra.core.override_parser.types import Quote, QuotedString

from freemask.errors import UserError


def quoted(key: str, text: str) -> str:
    """`key='...'` in Hydra's grammar. Two layers are escaped: OmegaConf's `${` and then Hydra's quotes."""
    if text == "???":
        raise UserError(f"'{key}' cannot be ???", came="???", expected="a text", todo="add a blank or a word")
    return f"{key}={_single(text)}"


def listed(key: str, text: str) -> str:
    """`{name: [override, ...]}` as one writes it in YAML; Hydra's grammar wants a quote around each override."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"{key}={text}"
    if not isinstance(found, dict) or not all(isinstance(each, list) for each in found.values()):
        return f"{key}={text}"
    if not all(isinstance(part, str) for each in (found, *found.values()) for part in each):
        return f"{key}={text}"
    if not all(re.fullmatch(r"[\w+-]+", name) for name in found):
        return f"{key}={text}"  # no name of a variant: Hydra or `variants.py` say what is wrong
    named = (f"{name}:[{','.join(_single(part) for part in each)}]" for name, each in found.items())
    return f"{key}={{{','.join(named)}}}"


def _single(text: str) -> str:
    return QuotedString(text=_without_interpolation(text), quote=Quote.single).with_quotes()


def _without_interpolation(text: str) -> str:
    # OmegaConf reads backslashes as escapes only right before `${`.
    return re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + r"\${", text)
