"""The console in a real browser: the journeys of an administrator, and what holds on every page.

Each test stands alone: the runner may give them to different workers, each with a gateway of its own.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NAME, PASSWORD, Console
from tests.shared_data import shared

PAGES = (
    "/", "/doors", "/people", "/people/p1006", "/events", "/devices", "/upstreams", "/quarantine", "/privacy",
    "/audit", "/account", "/health", "/settings", "/more", "/people/p1006/enrol?modality=fingerprint",
)  # fmt: skip
UNNAMED = """() => [...document.querySelectorAll("a[href],button,input:not([type=hidden]),select,textarea,summary")]
  .filter(e => e.checkVisibility() && !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.title))
  .map(e => e.outerHTML.slice(0, 120))"""


def test_the_one_time_token_claims_the_gateway_and_the_password_signs_in(console: Console) -> None:
    console.sign_in()
    page = console.page("/people", signed_in=False)
    assert page.url.endswith("/login")
    page.get_by_label("Account").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("fine")
    page.locator("details.who summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto("/people")
    assert page.url.endswith("/login")


def test_a_device_is_added_and_a_name_in_use_is_refused_in_words(console: Console) -> None:
    page = console.page("/devices")
    for name in ("side-door", "lobby"):
        page.get_by_role("button", name="Add a device").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Protocol").select_option("zkteco")
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_label("Address").fill("127.0.0.1:9")
        dialog.get_by_role("button", name="Add", exact=True).click()
        if name == "side-door":
            expect(page.locator("#toasts")).to_contain_text("Added")
            expect(page.get_by_role("row", name="side-door")).to_contain_text("zkteco")
    expect(page.get_by_role("alert")).to_contain_text("'lobby' is taken")
    console.faults[:] = [fault for fault in console.faults if "409" not in fault]  # the browser logs the refusal


def test_a_terminal_that_asks_to_join_is_approved(console: Console) -> None:
    page = console.page()
    for _ in range(100):
        page.goto("/devices")
        if page.get_by_text("An ADMS terminal asks to join").count():
            break
        page.wait_for_timeout(100)
    card = page.locator("section.attend", has_text=console.gateway.stranger)
    card.get_by_label("Name").fill("workshop-2")
    card.get_by_role("button", name="approve").click()
    expect(page.get_by_role("row", name="workshop-2")).to_contain_text(console.gateway.stranger)
    expect(page.locator("section.attend")).to_have_count(0)


def test_a_punch_appears_live(console: Console) -> None:
    page = console.page("/")
    console.gateway.punch(1003)
    expect(page.locator(".live .lr").first).to_contain_text("李思远")


def test_a_door_opens_only_when_the_button_is_held(console: Console) -> None:
    opened = console.gateway.site.doors.controller.opened
    page = console.page("/doors")
    for _ in range(100):
        button = page.get_by_role("button", name="Hold to open: server-room")
        if button.count():
            break
        page.wait_for_timeout(100)
        page.goto("/doors")
    before = len(opened)
    button.dispatch_event("pointerdown", {"button": 0, "pointerId": 1})
    button.dispatch_event("pointerup", {"button": 0, "pointerId": 1})
    expect(button).to_contain_text("Hold for 0.8 s")
    assert len(opened) == before
    button.focus()
    page.keyboard.down("Space")
    expect(button).to_contain_text("Open, locks in")
    page.keyboard.up("Space")
    assert len(opened) == before + 1
    page.goto("/audit?action=door.open")
    expect(page.get_by_role("row", name="server-room").first).to_contain_text(NAME)


def test_consent_enrols_a_face_and_its_withdrawal_leaves_a_signed_receipt(console: Console) -> None:
    photos = sorted(shared("faces", "lfw", "Akhmed_Zakayev").glob("*.jpg"))
    page = console.page("/people/p1012")
    page.get_by_role("link", name="Ask and enrol").first.click()
    agree = page.get_by_role("button", name="Agree to what is ticked")
    page.get_by_label("Date of birth").fill("1990-02-03")
    page.get_by_label("Type your name to sign").fill("徐蕾")
    agree.click()
    expect(page.get_by_role("alert")).to_contain_text("No purpose is ticked")
    page.get_by_label("To punch in and out").check()
    page.get_by_label("To open doors").check()
    agree.click()
    expect(page.locator("#capture")).to_be_visible()
    for photo in photos[:8]:
        with page.expect_response("**/photo"):
            page.get_by_label("Use a photograph").set_input_files(photo)
        page.wait_for_timeout(50)
        if page.locator("#done").is_visible():
            break
    expect(page.locator("#done")).to_be_visible()
    page.get_by_role("link", name="See the person").click()
    page.get_by_role("button", name="Withdraw consent").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Withdraw").click()
    receipt = page.get_by_role("region", name="Erasure receipt")
    expect(receipt).to_contain_text("Ed25519")
    expect(page.get_by_role("link", name="Ask and enrol").first).to_be_visible()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_page_fits_every_width_and_names_every_control(console: Console, language: str) -> None:
    page = console.page(language=language)
    for path in PAGES:
        page.set_viewport_size({"width": 1440, "height": 900})
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert page.get_by_role("heading", level=1).count() == 1, path
        assert page.evaluate(UNNAMED) == [], path
        for width in (390, 768, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow(page) <= 0, f"{path} at {width} px scrolls sideways"


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_the_theme_button_turns_the_page_dark_and_it_stays_so(console: Console) -> None:
    page = console.page("/health")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto("/devices")
    assert light != dark == page.evaluate("getComputedStyle(document.body).backgroundColor")
