"""What takes another person, or another try, in a real browser: approvals, incidents, conflicts, sign-on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from pydantic import SecretStr

from edge_agent.config import Oidc, SignIn
from edge_agent.policy.roles import Role
from edge_agent.policy.two_people import ActKind
from tests.browser.conftest import Console
from tests.identity_provider import identity_provider

pytestmark = pytest.mark.xdist_group("browser-journeys")
DOOR = "server-room"


@pytest.fixture
def two_people(console: Console) -> Iterator[Console]:
    console.gateway.change("two_people", {"acts": frozenset({ActKind.DOOR_OPEN, ActKind.EXPORT})})
    yield console
    console.gateway.change("two_people", {"acts": frozenset({ActKind.DISCLOSURE})})


def hold(page: Page, door: str) -> None:
    for _ in range(100):
        button = page.get_by_role("button", name=f"Hold to open: {door}")
        if button.count():
            break
        page.wait_for_timeout(100)
        page.goto("/doors")
    button.focus()
    page.keyboard.down("Space")
    expect(page.get_by_role("alert").filter(has_text="Waits for a second person")).to_be_visible()
    page.keyboard.up("Space")


def card(page: Page, title: str) -> Locator:
    return page.locator("section.card", has=page.get_by_role("heading", name=title)).first


def test_one_asks_for_a_door_another_approves_and_it_opens(two_people: Console) -> None:
    opened = two_people.gateway.site.doors.controller.opened
    page = two_people.page("/doors")
    before = len(opened)
    hold(page, DOOR)
    assert len(opened) == before
    page.get_by_role("link", name="See where it stands").click()
    mine = card(page, f"Open “{DOOR}” once")
    expect(mine).to_contain_text("You asked for it: another person has to approve.")
    expect(mine.get_by_role("button", name="Approve")).to_have_count(0)
    other = two_people.page_of("zhaomin", Role.SECURITY, "/")
    expect(other.locator(".nav [data-count-of=approvals]")).to_have_text("1")
    other.get_by_role("link", name="Decide").click()
    other.get_by_role("button", name=f"Approve: Open “{DOOR}” once").click()
    expect(other.locator("#toasts")).to_contain_text("Approved")
    expect(card(other, f"Open “{DOOR}” once")).to_contain_text("The door was opened")
    assert len(opened) == before + 1
    expect(card(page, f"Open “{DOOR}” once")).to_contain_text("zhaomin")  # the asker's page follows by itself


def test_an_export_that_waits_is_no_file_and_is_fetched_once_approved(two_people: Console) -> None:
    page = two_people.page_of("officer-one", Role.PRIVACY_OFFICER, "/people/p1006", language="zh")
    files: list[str] = []
    page.on("download", lambda download: files.append(download.suggested_filename))
    page.get_by_role("button", name="导出本人数据").click()
    expect(page.get_by_role("alert").filter(has_text="等另一位批准")).to_be_visible()
    assert files == []
    other = two_people.page_of("officer-two", Role.PRIVACY_OFFICER, "/approvals", language="zh")
    other.get_by_role("button", name=re.compile("^批准：导出 .*p1006")).click()
    expect(other.locator("#toasts")).to_contain_text("已批准")
    page.goto("/approvals")
    with page.expect_download() as download:
        page.get_by_role("button", name="取走文件（一次）").click()
    assert download.value.suggested_filename == "p1006.json"
    assert '"p1006"' in Path(download.value.path()).read_text("utf-8")


def test_what_goes_to_an_authority_is_a_file_only_after_another_officer_read_the_reference(console: Console) -> None:
    page = console.page_of("officer-one", Role.PRIVACY_OFFICER, "/people/p1006")
    files: list[str] = []
    page.on("download", lambda download: files.append(download.suggested_filename))
    page.get_by_role("button", name="Disclose to an authority").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Authority").fill("District court")
    dialog.get_by_label("Legal reference").fill("(2026) 17")
    dialog.get_by_role("button", name="Disclose").click()
    expect(page.get_by_role("alert").filter(has_text="Waits for a second person")).to_be_visible()
    assert files == []
    other = console.page_of("officer-two", Role.PRIVACY_OFFICER, "/approvals")
    asked = other.locator("section.card", has_text="District court").first
    expect(asked).to_contain_text("(2026) 17")
    asked.get_by_role("button", name=re.compile("^Approve: ")).click()
    expect(other.locator("#toasts")).to_contain_text("Approved")
    page.goto("/approvals")
    with page.expect_download() as download:
        page.get_by_role("button", name="Fetch").click()
    assert download.value.suggested_filename == "p1006-disclosure.json"


def test_the_end_of_a_gateway_is_asked_for_by_one_and_permitted_by_another(console: Console) -> None:
    acts = frozenset({ActKind.DECOMMISSION, ActKind.DISCLOSURE})
    console.gateway.change("two_people", {"acts": acts})
    page = console.page_of("liwei", Role.ADMIN, "/settings#two-people")
    page.get_by_role("button", name="Ask to end this gateway").click()
    expect(page.get_by_role("alert").filter(has_text="Waits for a second person")).to_be_visible()
    other = console.page_of("chenyu", Role.ADMIN, "/approvals")
    other.get_by_role("button", name=re.compile("^Approve: End ")).click()
    expect(other.locator("#toasts")).to_contain_text("Approved")
    page.goto("/approvals")
    expect(page.get_by_role("main")).to_contain_text("run edge-agent decommission on the gateway")
    console.gateway.change("two_people", {"acts": frozenset({ActKind.DISCLOSURE})})


def test_the_rules_are_set_in_the_settings_and_taking_one_off_waits(two_people: Console) -> None:
    page = two_people.page("/settings#two-people")
    form = page.locator("#two-people")
    form.get_by_label("Lockdown and its end").check()
    form.get_by_role("button", name="Save").click()
    expect(page.locator("#toasts")).to_contain_text("Saved")
    expect(form.get_by_label("Lockdown and its end")).to_be_checked()
    form.get_by_label("Exporting data").uncheck()
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="Waits for a second person")).to_be_visible()
    assert ActKind.EXPORT in two_people.gateway.agent.site.two_people.acts


def test_an_incident_is_contained_written_up_and_closed(console: Console) -> None:
    page = console.page("/incidents", language="zh")
    page.get_by_role("button", name="开立事件").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("说明").fill("U 盘不见了")
    dialog.get_by_label("立即停止采集和比对").check()
    dialog.get_by_role("button", name="开立", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("起安全事件正在处理")
    found = page.locator("section.card", has_text="U 盘不见了")
    expect(found).to_contain_text("采集已停")
    for label, words in (("告知书（中文）", "个人信息安全事件告知书"), ("报告（英文）", "Report of a personal")):
        with page.expect_download() as download:
            found.get_by_role("button", name=label).click()
        assert words in Path(download.value.path()).read_text("utf-8")
    expect(found.get_by_role("button", name="关闭事件")).to_be_disabled()
    found.get_by_role("button", name="恢复采集和比对").click()
    expect(page.locator("#toasts")).to_contain_text("已恢复采集和比对")
    found.get_by_role("button", name="关闭事件").click()
    expect(found).to_contain_text("已关闭")


def test_somebody_elses_change_of_a_person_is_shown_and_what_was_typed_stays(console: Console) -> None:
    page = console.page("/people/p1007")
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Valid until").fill("2031-05-31")
    console.gateway.write(lambda c: c.execute("UPDATE people SET department = 'Annealing' WHERE subject = 'p1007'"))
    dialog.get_by_label("Department").fill("Tempering")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Department: Annealing")
    expect(dialog.get_by_label("Department")).to_have_value("Tempering")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator(".head")).to_contain_text("Tempering")
    expect(page.locator(".head")).to_contain_text("2031-05-31")


# Signing in through an identity provider

WHY = {
    "state": ("不是在这个浏览器里开始的", "not begun in this browser"),
    "provider": ("没有给出可用的回答", "no usable answer"),
    "role": ("没有给您这里的角色", "gives you no role"),
    "disabled": ("已停用", "is shut"),
}


@pytest.fixture
def sign_on(console: Console) -> Iterator[Console]:
    with identity_provider() as issuer:
        settings = Oidc(
            issuer=issuer, client_id="gateway", secret=SecretStr("s3cret"), label="Company",
            scopes=("openid", "profile", "groups"), roles={"gate-ops": Role.OPERATOR},
        )  # fmt: skip
        console.gateway.change("sign_in", {"oidc": settings})
        yield console
        console.gateway.change("sign_in", {"oidc": SignIn().oidc})


def through_the_provider(console: Console, sub: str) -> Page:
    console.be_claimed()
    page = console.context(signed_in=False).new_page()  # not watched: it goes to another site and comes back
    page.goto("/login")
    page.get_by_role("link", name="Sign in with Company").click()
    page.locator("input[name=sub]").fill(sub)
    page.locator("button[type=submit],input[type=submit]").first.click()
    return page


def test_a_whole_sign_on_carries_the_strict_cookie_home(sign_on: Console) -> None:
    page = through_the_provider(sign_on, "s-1")
    page.wait_for_url(sign_on.gateway.url + "/")
    expect(page.locator("details.who summary")).to_contain_text("lin.lan")
    [cookie] = [each for each in page.context.cookies() if "session" in each.get("name", "")]
    assert (cookie.get("sameSite"), cookie.get("httpOnly"), cookie.get("secure")) == ("Strict", True, True)
    page.goto("/people")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.url.endswith("/people")


def test_a_sign_on_that_is_refused_says_why_at_the_sign_in(sign_on: Console) -> None:
    page = through_the_provider(sign_on, "s-2")
    page.wait_for_url("**/login?sso=role")
    expect(page.get_by_role("alert")).to_contain_text(WHY["role"][1])
    page.goto("/api/v1/session/oidc/callback?state=x&code=y")
    expect(page.get_by_role("alert")).to_contain_text(WHY["state"][1])


@pytest.mark.parametrize("number", [0, 1])
def test_each_refusal_has_its_words_in_both_languages(console: Console, number: int) -> None:
    console.be_claimed()
    page = console.page("/login", signed_in=False, language=("zh", "en")[number])
    expect(page.locator("#sign-on")).to_be_hidden()  # no provider, no button
    for code, words in WHY.items():
        page.goto(f"/login?sso={code}")
        expect(page.get_by_role("alert")).to_contain_text(words[number])
