"""The page that raters get: one HTML file with its script and styles inside, and clips beside it. It loads nothing from
elsewhere, and knows no more than what is asked."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

SCRIPTS = "draw kept words stage ask end main"


def document(public: Mapping[str, Any]) -> str:
    styles = _asset("report", "report.css") + _asset("study", "study.css")
    scripts = "".join(_asset("study", f"{name}.js") for name in SCRIPTS.split())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex"><link rel="icon" href="data:,">\n'
        f"<title>A study of edited videos</title>\n<style>\n{styles}</style></head>\n<body>\n"
        '<main id="page" tabindex="-1"><noscript>This page needs JavaScript.</noscript></main>\n'
        f'<script>\n"use strict";\nconst study = {_inside(public)};\n{scripts}</script>\n'
        "</body></html>\n"
    )


def _inside(public: Mapping[str, Any]) -> str:
    """As JSON in a script, which nothing in it ends."""
    text = json.dumps(public, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _asset(room: str, name: str) -> str:
    return (files("experiments") / room / "assets" / name).read_text(encoding="utf-8")
