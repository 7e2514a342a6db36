"""What holds on every page, in both languages and themes, from a small phone to a desktop."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Console
from tests.npm_peers import npm_peers

pytestmark = pytest.mark.xdist_group("browser-pages")

PAGES = (
    "/", "/doors", "/doors/south-gate", "/access", "/people", "/people/p1006", "/enrol",
    "/people/p1006/enrol?modality=face", "/people/p1006/enrol?modality=fingerprint", "/events", "/events/1", "/devices",
    "/devices/lobby", "/upstreams", "/quarantine", "/privacy", "/privacy/receipts", "/audit", "/health", "/settings",
    "/settings/accounts", "/settings/configuration", "/settings/configuration/1", "/account", "/more",
    "/approvals", "/incidents",
)  # fmt: skip
WIDTHS = {320: 36, 390: 36, 768: 24, 1440: 24, 1920: 24}  # -> the least height of what a finger or a pointer has to hit
UNNAMED = """() => [...document.querySelectorAll("a[href],button,input:not([type=hidden]),select,textarea,summary")]
  .filter(e => e.checkVisibility() && !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.title))
  .map(e => e.outerHTML.slice(0, 120))"""
# Text links are set apart by 2.5.8; a box is as large as the label that ticks it.
SMALL = """least => [...document.querySelectorAll(
    "button,.btn,select,summary,input:not([type=hidden]),.seg a,.tabs a,.nav a,.go a,.sub-nav a,.lamps a")]
  .filter(e => e.checkVisibility() && !e.closest(".vh") && getComputedStyle(e).opacity !== "0")
  .filter(e => !e.matches("th button"))
  .map(e => e.matches("[type=checkbox]") ? e.closest("label") : e)
  .filter(e => { const r = e.getBoundingClientRect(); return r.height && (r.height < least - .5 || r.width < 24); })
  .map(e => `${Math.round(e.getBoundingClientRect().width)}x${Math.round(e.getBoundingClientRect().height)} `
    + e.outerHTML.slice(0, 100))"""
CHINESE_LEFT = """() => [...document.querySelectorAll("main h2, main th, main button, main label, .nav a, .lamp")]
  .filter(e => e.checkVisibility() && /[\\u4e00-\\u9fff]/.test(e.textContent)).map(e => e.textContent.trim())"""
# A list's first rows speak for the others.
AXE = """() => axe.run({exclude: [
    ["tbody tr:nth-child(n+4)"], [".hours button:nth-child(n+3)"], [".lr:nth-child(n+3)"]
  ]}, {
    resultTypes: ["violations"],
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
  }).then(r => r.violations.map(v => `${v.id}: ${v.nodes.slice(0, 3)
    .map(n => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(" | ")}`))"""


# Each language is looked at by axe in one theme and width, so that both of either are seen.
LOOKED_AT = {
    "zh": (("dark", "light"), (768, 1920, 320, 390, 1440)),
    "en": (("light", "dark"), (768, 1920, 1440, 320, 390)),
}


@pytest.fixture(scope="module")
def axe() -> str:
    """Deque's checker, put into the page by the browser; empty where npm cannot be had: our own checks still run."""
    try:
        return (npm_peers() / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
    except pytest.skip.Exception:
        return ""


@pytest.mark.parametrize("language", ["zh", "en"])
def test_fits_every_width_in_both_themes_and_is_accessible(console: Console, language: str, axe: str) -> None:
    console.gateway.punch(1006)
    page = console.page(language=language)
    themes, widths = LOOKED_AT[language]
    wrong = []
    for path in PAGES:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert page.get_by_role("heading", level=1).count() == 1, path
        assert page.evaluate("document.documentElement.lang") == {"zh": "zh-CN", "en": "en"}[language]
        wrong += [f"{path}: no name: {found}" for found in page.evaluate(UNNAMED)]
        if language == "en":
            wrong += [f"{path}: not English: {found}" for found in page.evaluate(CHINESE_LEFT) if not _a_name(found)]
        for theme in themes:
            page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
            for width in widths:
                page.set_viewport_size({"width": width, "height": 900})
                if overflow(page) > 0:
                    wrong.append(f"{path} at {width} px, {theme}: scrolls sideways by {overflow(page)}")
                if theme == themes[0]:
                    small = page.evaluate(SMALL, WIDTHS[width])
                    wrong += [f"{path} at {width} px: small: {found}" for found in small]
        if axe:
            page.evaluate(axe)
            wrong += [f"{path} at {width} px, {theme}: {found}" for found in page.evaluate(AXE)]
    assert not wrong, "\n".join(wrong[:40])


def test_the_pages_before_the_sign_in_are_accessible_too(console: Console, axe: str) -> None:
    console.be_claimed()
    page = console.page("/login", signed_in=False, width=320)
    assert overflow(page) <= 0
    assert page.evaluate(UNNAMED) == []
    if axe:
        page.evaluate(axe)
        assert page.evaluate(AXE) == []


def test_the_first_view_stays_within_its_budget(console: Console) -> None:
    """Under 100 KB as it is, and two files beside the page."""
    page = console.page("/")
    sizes = page.evaluate(
        "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))"
        ".filter(e => !e.name.includes('/live')).map(e => [new URL(e.name).pathname, e.decodedBodySize])"
    )
    assert {path for path, _ in sizes} - {"/static/favicon.svg"} == {"/", "/static/console.css", "/static/console.js"}
    assert sum(size for _, size in sizes) < 100_000


def test_nothing_moves_where_motion_is_unwanted_and_forced_colours_keep_the_shapes(console: Console) -> None:
    page = console.page("/doors")
    assert page.evaluate("getComputedStyle(document.querySelector('.btn')).transitionDuration") in {"0s", ""}
    page.emulate_media(forced_colors="active")
    page.goto("/doors")
    assert overflow(page) <= 0
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")


def _a_name(text: str) -> bool:
    """People's names and what the site calls itself stay as they are; so does the way to the other language."""
    return any(name in text for name in ("示范园区", "中文")) or len(text) <= 4 or text.startswith("Enrol")


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
