"""The console in a real browser: the journeys of an administrator, and what holds on every page.

Each test stands alone.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from device_drivers import discovery
from device_drivers.devices import Identity
from device_drivers.discovery import FoundDevice
from device_drivers.simulated.synthetic_fingerprints import Finger
from edge_agent.demo.doors import READERS, SERVER_DOOR
from tests.browser.conftest import NAME, PASSWORD, Console
from tests.shared_data import shared

pytestmark = pytest.mark.xdist_group("browser-journeys")


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
        dialog.get_by_label("Name", exact=True).fill(name)
        dialog.get_by_label("Address").fill("127.0.0.1:9")
        dialog.get_by_role("button", name="Add", exact=True).click()
        if name == "side-door":
            expect(page.locator("#toasts")).to_contain_text("Added")
            expect(page.get_by_role("row", name="side-door")).to_contain_text("ZKTeco")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("'lobby' is taken")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_focused()
    console.expected("409")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Add a device")).to_be_focused()


def test_a_device_found_on_the_network_is_added_in_place(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scan() -> list[FoundDevice]:
        return [FoundDevice("uhppote", "127.0.0.1:9", Identity("UHPPOTE", "UT0311-L04", "423187757", "v8.92"))]

    monkeypatch.setattr(discovery, "scan", scan)
    page = console.page("/devices")
    page.get_by_role("button", name="Find on the network").click()
    page.get_by_role("button", name="Add 423187757").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Address")).to_have_value("127.0.0.1:9")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("row", name="uhppote-423187757")).to_contain_text("UHPPOTE")


def test_a_log_is_cleared_only_under_its_devices_name_and_a_refusal_says_why(console: Console) -> None:
    page = console.page("/devices/lobby", language="zh")
    page.get_by_role("button", name="清空记录…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="清空记录")).to_be_disabled()
    dialog.get_by_label("输入 lobby 以确认").fill("lobby")
    page.route("**/log/clear", lambda route: route.fulfill(
        status=409, content_type="application/problem+json",
        body='{"title": "Conflict", "status": 409, "code": "not_cleared", "detail": "lobby: collector lacks 3"}',
    ))  # fmt: skip
    dialog.get_by_role("button", name="清空记录").click()
    expect(dialog.get_by_role("alert")).to_contain_text("记录没有清空，一条都没少")
    expect(dialog.get_by_role("alert").locator("small")).to_have_text("lobby: collector lacks 3")
    console.expected("409")


def test_an_area_and_a_clock_are_added_changed_and_removed(console: Console) -> None:
    page = console.page("/access")
    rules = lambda: console.gateway.agent.site.access  # noqa: E731
    card = page.locator("#zones")
    card.get_by_text("Add an area").click()
    card.get_by_label("Name").fill("lab")
    card.get_by_role("button", name="Add the area").click()
    expect(card).to_contain_text("lab")
    card.locator("summary", has_text="lab").click()
    form = card.locator("form[data-config='access/zones/lab']")
    form.get_by_label("At most, people").fill("12")
    form.get_by_role("button", name="Save the area").click()
    expect(card).to_contain_text("at most 12 people")
    card.locator("summary", has_text="lab").click()
    form.get_by_role("button", name="Remove…").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(card).not_to_contain_text("lab")
    assert "lab" not in {zone.name for zone in rules().zones}
    card = page.locator("#points")
    card.get_by_text("Add a point").click()
    form = card.locator("form[data-mode=append]")
    form.get_by_label("Name").fill("canteen-clock")
    form.get_by_label("Fingerprint module").select_option("gate-finger")
    form.get_by_label("Direction of a punch").select_option("always in")
    form.get_by_role("button", name="Add the point").click()
    expect(page.get_by_role("alert")).to_contain_text("gate-finger is south-gate-in's already")
    console.expected("422")
    form.get_by_label("Fingerprint module").select_option("None")
    form.get_by_label("Camera", exact=True).select_option("gate-camera")
    form.get_by_role("button", name="Add the point").click()
    expect(card).to_contain_text("canteen-clock")
    point = rules().points[-1]
    assert (point.door, point.reader, point.camera, point.punch) == (None, None, "gate-camera", "in")
    card.locator("summary", has_text="canteen-clock").click()
    form = card.locator("form[data-config='access/points/canteen-clock']")
    form.get_by_label("Direction of a punch").select_option("always out")
    form.get_by_role("button", name="Save the point").click()
    expect(page.locator("#toasts")).to_contain_text("Saved")
    assert rules().points[-1].punch == "out"
    card.locator("summary", has_text="canteen-clock").click()
    form.get_by_role("button", name="Remove…").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(card).not_to_contain_text("canteen-clock")
    assert "canteen-clock" not in {point.name for point in rules().points}


def test_a_reader_in_install_mode_gets_a_key_that_no_page_shows(console: Console) -> None:
    reader = console.gateway.reset_reader(SERVER_DOOR)
    page = console.page(f"/devices/{READERS}")
    form = page.locator("form", has=page.get_by_label("Address of the reader"))
    form.get_by_label("Address of the reader").fill(str(SERVER_DOOR))
    form.get_by_label("Wait, s").fill("30")
    form.get_by_role("button", name="key").click()
    expect(page.locator("#toasts")).to_contain_text("The reader has a new key", timeout=35_000)
    [line] = [device for device in console.gateway.agent.site.devices if device.name == READERS]
    assert reader.key.hex() in {pd["key"] for pd in line.options["pds"]}
    page.reload()
    assert reader.key.hex() not in page.content()


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
    button = page.get_by_role("button", name="Hold to open: server-room")
    expect(button).to_be_visible(timeout=20_000)  # once the controller has answered
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


def agree(page: Page, name: str) -> None:
    """The person's own yes to both purposes, after two refusals that keep what was typed."""
    button = page.get_by_role("button", name="Agree to what is ticked")
    page.get_by_label("Date of birth").fill("1990-02-03")
    page.get_by_label("Type your name to sign").fill("somebody else")
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("No purpose is ticked")
    page.get_by_label("To punch in and out").check()
    page.get_by_label("To open doors").check()
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("The signature differs")
    page.get_by_role("link", name="differs from the name on record").click()
    expect(page.get_by_label("Type your name to sign")).to_be_focused()
    page.get_by_label("Type your name to sign").fill(name)
    button.click()
    expect(page.locator("#capture")).to_be_visible()


def test_consent_enrols_a_face_before_the_camera_and_its_withdrawal_leaves_a_signed_receipt(console: Console) -> None:
    shared("faces", "lfw", "Akhmed_Zakayev")
    page = console.page("/enrol?search=1012")
    page.get_by_role("link", name="Face: 徐蕾").click()
    agree(page, "徐蕾")
    page.get_by_role("button", name="Open the camera").click()
    expect(page.locator("#done")).to_be_visible(timeout=40_000)
    page.get_by_role("link", name="See the person").click()
    expect(page.get_by_role("row", name="This gateway")).to_contain_text("sealed")
    page.get_by_role("button", name="Withdraw consent").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Card and PIN keep working")
    dialog.get_by_role("button", name="Withdraw").click()
    receipt = page.get_by_role("region", name="Erasure receipt")
    expect(receipt).to_contain_text("Template store: key destroyed")
    receipt.get_by_role("link").click()
    expect(page.get_by_role("region", name="Erasure receipt")).to_contain_text("Ed25519")
    expect(page.get_by_label("Document")).to_contain_text('"signature"')


def test_the_gateways_own_camera_enrols_and_a_photograph_says_what_is_wrong(console: Console, tmp_path: Path) -> None:
    folder = shared("faces", "lfw", "Akhmed_Zakayev")
    page = console.page("/people/p1013/enrol?modality=face")
    agree(page, "高志强")
    wall = cv2.imencode(".png", np.full((300, 300, 3), 90, np.uint8))[1].tobytes()
    wall_file = tmp_path / "wall.png"
    wall_file.write_bytes(wall)
    picture: FilePayload = {"name": "wall.png", "mimeType": "image/png", "buffer": wall}
    page.get_by_label("Use a photograph").set_input_files(files=[picture])
    expect(page.locator("#cue")).to_have_text("No face found: stand in front of the camera")
    expect(page.locator("#checks li.no")).to_contain_text("One face")
    expect(page.locator("#checks li.no")).to_contain_text("0 · = 1")
    console.gateway.stand(wall_file)
    page.get_by_role("button", name="Capture with it").click()
    expect(page.locator("#cue")).to_have_text("Look at the gateway's camera")
    expect(page.locator("#cue")).to_have_text("No face found: stand in front of the camera")
    console.gateway.stand(min(folder.glob("*.jpg")))
    expect(page.locator("#checks li", has_text="Sharpness")).to_contain_text("≥ 2.8")
    expect(page.locator("#done")).to_be_visible(timeout=40_000)
    page.get_by_role("link", name="See the person").click()
    page.get_by_role("button", name="Withdraw consent").click()
    page.get_by_role("dialog").get_by_role("button", name="Withdraw").click()
    expect(page.get_by_role("region", name="Erasure receipt")).to_be_visible()


def test_a_finger_is_enrolled_on_the_gateways_sensor_from_consent_to_its_withdrawal(console: Console) -> None:
    page = console.page("/people/p1011/enrol?modality=fingerprint")
    page.get_by_label("Which finger").select_option("Left index")
    agree(page, page.locator("#sign").get_attribute("data-want") or "")
    page.get_by_role("button", name="Capture with it").click()
    expect(page.locator("#cue")).to_contain_text("Place the finger on the sensor")
    for impression in (0, 1):
        console.gateway.lay(Finger.grow(31), impression)
        expect(page.locator("#cue")).to_contain_text("Lift the finger", timeout=20_000)
        console.gateway.site.biometrics.module.lift()
        expect(page.locator("#cue")).to_contain_text("Place the finger again")
    console.gateway.lay(Finger.grow(31), 2)
    expect(page.locator("#done")).to_be_visible(timeout=40_000)
    console.gateway.site.biometrics.module.lift()
    expect(page.locator("#checks li.yes", has_text="Clear ridges")).to_contain_text("≥ 40")
    page.get_by_role("link", name="See the person").click()
    expect(page.get_by_role("row", name="This gateway")).to_contain_text("sealed")
    page.get_by_role("button", name="Withdraw consent").click()
    page.get_by_role("dialog").get_by_role("button", name="Withdraw").click()
    expect(page.get_by_role("region", name="Erasure receipt")).to_contain_text("Template store: key destroyed")


def test_lamps_and_doors_follow_the_gateway_without_a_reload(console: Console) -> None:
    page = console.page("/doors")
    page.evaluate("window.kept = true")
    console.gateway.force(1)
    card = page.locator("article", has_text="south-gate")
    expect(card).to_contain_text("Forced open")
    expect(page.locator(".lamps:not(.m) .lamp", has_text="Doors")).to_contain_text("alarm")
    console.gateway.shut(1)
    expect(card).to_contain_text("Locked")
    assert page.evaluate("window.kept")
    page.get_by_role("button", name="Acknowledge").first.click()
    expect(page.locator("#toasts")).to_contain_text("Acknowledged")


def test_what_happens_between_a_page_and_its_stream_is_shown_and_focus_stays(console: Console) -> None:
    page = console.page()
    streams: list[Route] = []
    page.route("**/live?*", lambda route: streams.append(route))
    with page.expect_request("**/live?*"):
        page.goto("/doors")
    button = page.get_by_role("button", name="Hold to open: south-gate")
    button.focus()
    console.gateway.force(1)
    expect(console.page("/doors").locator("article", has_text="south-gate")).to_contain_text("Forced open")
    card = page.locator("article", has_text="south-gate")
    expect(card).not_to_contain_text("Forced open")
    streams[0].continue_()
    expect(card).to_contain_text("Forced open")
    expect(button).to_be_focused()
    console.gateway.shut(1)
    expect(card).to_contain_text("Locked")
    expect(button).to_be_focused()
    page.get_by_role("button", name="Acknowledge").first.click()
    expect(page.locator("#toasts")).to_contain_text("Acknowledged")


def test_an_open_door_is_counted_down_while_its_card_is_made_again(console: Console) -> None:
    page = console.page("/doors")
    page.route("**/open", lambda route: route.fulfill(json={"state": "done", "seconds": 60}))
    card = page.locator("article", has_text="south-gate")
    button = card.locator("[data-open]")
    button.focus()
    page.keyboard.down("Space")
    expect(button).to_contain_text("Open, locks in")
    page.keyboard.up("Space")
    console.gateway.force(1)
    expect(card).to_contain_text("Forced open")
    expect(button).to_contain_text("Open, locks in")
    expect(button).to_be_focused()
    console.gateway.shut(1)
    expect(card).to_contain_text("Locked")


def test_a_door_is_unlocked_for_a_while_and_given_back_from_its_menu(console: Console) -> None:
    page = console.page("/doors/server-room")
    for item, state in (("Unlock for 5 min", "Unlocked until"), ("Back to the schedule", "Locked")):
        page.locator("summary.more").click()
        page.get_by_role("button", name=item).click()
        expect(page.locator("#toasts")).to_contain_text("server-room")
        expect(page.locator("article .st")).to_contain_text(state)


def test_a_lockdown_needs_its_word_typed_and_is_lifted(console: Console) -> None:
    page = console.page("/doors", language="zh")
    page.get_by_role("button", name="封锁全部门").click()
    dialog = page.get_by_role("dialog")
    sure = dialog.get_by_role("button", name="封锁全部门")
    expect(sure).to_be_disabled()
    dialog.get_by_label("输入「封锁」以确认").fill("封锁")
    sure.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("扇门已封锁")
    page.get_by_role("button", name="解除封锁").click()
    expect(page.get_by_role("button", name="解除封锁")).to_have_count(0)


def test_nothing_is_shown_before_a_click_on_it_is_heard(console: Console) -> None:
    page = console.page()
    scripts: list[Route] = []
    page.route("**/static/console.js", lambda route: scripts.append(route))
    page.goto("/doors", wait_until="commit")
    page.wait_for_function("document.querySelector('[data-dialog=lockdown]')", polling=10)
    painted = page.evaluate("new Promise(r => { requestAnimationFrame(() => r(true)); setTimeout(r, 300, false); })")
    assert painted is False
    scripts[0].continue_()
    page.get_by_role("button", name="Lock down all doors").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_schedule_is_drawn_with_the_keyboard_and_a_group_admits_by_it(console: Console) -> None:
    page = console.page("/access")
    page.get_by_text("Add a schedule").click()
    form = page.locator("form[data-mode=key]")
    form.get_by_label("Name").fill("early")
    form.get_by_role("textbox", name="Mon").fill("6-14")
    form.get_by_role("button", name="Add the schedule").click()
    expect(form).to_contain_text("Write 08:00-18:00")
    form.get_by_role("textbox", name="Mon").fill("")
    form.get_by_role("button", name="Mon 00:00–01:00").focus()
    for key in (*["ArrowRight"] * 6, "Space", "Shift+ArrowRight", "Shift+ArrowRight", "ArrowDown", "Space"):
        page.keyboard.press(key)
    expect(form.get_by_role("textbox", name="Mon")).to_have_value("06:00-09:00")
    expect(form.get_by_role("textbox", name="Tue")).to_have_value("08:00-09:00")
    form.get_by_role("textbox", name="Fri").fill("22:00-06:00+1")
    expect(form.get_by_role("button", name="Fri 23:00–24:00")).to_have_attribute("aria-pressed", "true")
    form.get_by_role("button", name="Add the schedule").click()
    expect(page.locator("#toasts")).to_contain_text("Added")
    page.get_by_text("Add a group").click()
    form = page.locator("form[data-config='access/groups']")
    form.get_by_label("Name").fill("early-shift")
    form.get_by_role("button", name="Add a door").click()
    form.get_by_label("Schedule").select_option("early")
    form.get_by_role("button", name="Add the group").click()
    expect(page.locator("#groups")).to_contain_text("early-shift")
    rules = console.gateway.agent.site.access
    assert [str(span) for span in rules.schedules["early"].weekly["fri"]] == ["22:00-06:00+1"]
    assert rules.groups[-1].grants[0].schedule == "early"


def test_somebody_elses_change_is_shown_and_mine_is_kept_and_put_on_top(console: Console) -> None:
    page = console.page("/settings")
    page.get_by_label("Audit, days").fill("900")
    console.gateway.change("retention", {"events_days": 45})
    page.get_by_role("button", name="Save retention").click()
    banner = page.locator("#conflict")
    expect(banner).to_contain_text("Somebody changed it first")
    expect(banner.get_by_role("row", name="retention.events_days")).to_contain_text("45")
    expect(page.get_by_label("Audit, days")).to_have_value("900")
    banner.get_by_role("button", name="Save my change on top of it").click()
    expect(page.locator("#toasts")).to_contain_text("Retention saved")
    kept = console.gateway.agent.site.retention
    assert kept.audit_days == 900
    page.goto("/settings/configuration")
    page.get_by_role("link", name="Version").first.click()
    expect(page.get_by_role("row", name="retention.audit_days").first).to_contain_text("900")


def test_a_refused_field_is_named_at_the_field_and_in_a_summary_that_leads_to_it(console: Console) -> None:
    page = console.page("/settings")
    page.get_by_label("Time zone").fill("Mars/Olympus")
    page.get_by_role("button", name="Save site").click()
    page.get_by_role("alert").get_by_role("link").click()
    expect(page.get_by_label("Time zone")).to_be_focused()
    expect(page.get_by_label("Time zone")).to_have_attribute("aria-invalid", "true")
    console.expected("422")


def test_tables_are_walked_with_the_keyboard(console: Console) -> None:
    page = console.page("/people")
    page.keyboard.press("/")
    expect(page.get_by_label("Find people")).to_be_focused()
    page.keyboard.press("Escape")
    page.locator("h1").click()
    for key in ("j", "j", "k", "j"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/people/p1002")


def test_the_page_says_when_the_line_is_lost_and_that_doors_stay_controlled(console: Console) -> None:
    page = console.page("/doors")
    page.route("**/live?*", lambda route: route.abort())
    page.reload()
    expect(page.locator("#offline")).to_be_visible()
    expect(page.locator("#offline")).to_contain_text("Doors are still under the gateway")
    console.expected("ERR_FAILED")


def test_a_guard_lands_on_doors_and_sees_only_a_guards_pages(console: Console) -> None:
    page = console.page("/settings/accounts")
    page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Account", exact=True).fill("night-guard")
    dialog.get_by_label("Role").select_option("security")
    dialog.get_by_label("Password").fill("a long sentence for the guard")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("row", name="night-guard")).to_contain_text("Security")
    page = console.page("/login", signed_in=False)
    page.get_by_label("Account").fill("night-guard")
    page.get_by_label("Password").fill("a long sentence for the guard")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/doors")
    # who may open a door may be asked to agree to somebody else's opening
    pages = ("/", "/doors", "/people", "/events", "/devices", "/approvals", "/health")
    assert [link.get_attribute("href") for link in page.locator(".nav a").all()] == list(pages)
    page.goto("/privacy")
    expect(page.get_by_role("heading", level=1)).to_contain_text("does not include")
    console.expected("403")


def test_the_theme_button_turns_the_page_dark_and_it_stays_so(console: Console) -> None:
    page = console.page("/health")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch light or dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto("/devices")
    assert light != dark == page.evaluate("getComputedStyle(document.body).backgroundColor")
