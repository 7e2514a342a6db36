"""WCAG 2.2 contrast of the stylesheet's colours, computed from the tokens as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import edge_agent.console

CSS = (Path(edge_agent.console.__file__).parent / "static" / "console.css").read_text("utf-8")
TEXT, PART = 4.5, 3.0  # 1.4.3 for text, 1.4.11 for the edge of a control and the mark of a state
TONES = ("ok", "warn", "bad", "info", "seal", "off")
PAIRS = [
    *((ink, paper, TEXT) for ink in ("ink", "ink-2", "ink-3") for paper in ("surface", "bg", "sunken", "hover")),
    *((tone, f"{tone}-bg", TEXT) for tone in TONES),
    *((tone, "surface", TEXT) for tone in TONES),
    *(("ink", f"{tone}-bg", TEXT) for tone in TONES),
    ("on-primary", "primary", TEXT), ("on-danger", "danger", TEXT), ("danger", "surface", TEXT),
    ("plate-ink", "plate", TEXT), ("plate-2", "plate", TEXT),
    *((f"led-{led}", "plate", PART) for led in ("ok", "warn", "bad", "seal", "off")),
    ("edge", "surface", PART), ("bar", "surface", PART), ("focus", "bg", PART), ("focus", "surface", PART),
    ("focus-plate", "plate", PART),
]  # fmt: skip


def tokens(selector: str) -> dict[str, str]:
    block = CSS[CSS.index(selector) :]
    return dict(re.findall(r"--([\w-]+):(#[0-9A-F]{6})", block[: block.index("}")]))


LIGHT = tokens(":root{")
THEMES = {
    "light": LIGHT,
    "dark": LIGHT | tokens(":root[data-theme=dark]{"),
    "dark by the system": LIGHT | tokens(":root:not([data-theme]){"),
}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_is_that_of_the_specifications_examples() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes on white


@pytest.mark.parametrize("theme", THEMES)
def test_every_pair_of_colours_reaches_aa(theme: str) -> None:
    colours = THEMES[theme]
    short = {
        f"{ink} on {paper}": round(contrast(colours[ink], colours[paper]), 2)
        for ink, paper, least in PAIRS
        if contrast(colours[ink], colours[paper]) < least
    }
    assert not short


def test_the_system_theme_is_the_chosen_one() -> None:
    assert THEMES["dark"] == THEMES["dark by the system"]


def test_nothing_loads_from_elsewhere_and_no_template_has_a_style_or_a_script_of_its_own() -> None:
    assert "url(" not in CSS
    assert "@import" not in CSS
    for template in (Path(edge_agent.console.__file__).parent / "templates").glob("*.html"):
        text = template.read_text("utf-8")
        assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:|<script(?![^>]*\ssrc=\"/static/)", text), template
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text), template
