"""Sentences about now: numbers with the right plural, durations, deadlines, receipts in local time."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args
from zoneinfo import ZoneInfo

import pytest

import edge_agent
import edge_agent.api
import edge_agent.console
from device_drivers.catalog import DRIVERS
from device_drivers.errors import DeviceError
from edge_agent.api.doors import NewOrder
from edge_agent.api.privacy import LocationView, ReceiptView
from edge_agent.console import approval_pages, views, words
from edge_agent.console.audit_words import ACTIONS
from edge_agent.console.door_pages import headline, summary
from edge_agent.console.page import counted
from edge_agent.console.privacy_pages import receipt_paper
from edge_agent.enrolment import EnrolmentFault
from edge_agent.policy.consent import ConsentFault
from edge_agent.policy.roles import Role
from edge_agent.policy.two_people import ActKind, WhyNot
from templates_store.template import Modality


def english(_zh: str, en: str) -> str:
    return en


def chinese(zh: str, _en: str) -> str:
    return zh


def test_english_counts_one_apart() -> None:
    assert [counted(n, "door") for n in (0, 1, 2, 1200)] == ["0 doors", "1 door", "2 doors", "1,200 doors"]
    assert counted(2, "request is", "requests are") == "2 requests are"


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (timedelta(seconds=20), "under 1 min"),
        (timedelta(minutes=12), "12 min"),
        (timedelta(hours=47), "47 h"),
        (timedelta(days=3), "3 days"),
    ],
)
def test_a_duration_is_said_in_its_largest_unit(time: timedelta, said: str) -> None:
    assert views.lasted(time, english) == said


def card(**changes: object) -> dict[str, object]:
    shut = {"name": "gate", "card": "", "state": "Locked", "offline": False, "open": False, "lockdown": False}
    return shut | {"disobeyed": False} | changes


@pytest.mark.parametrize(
    ("cards", "title", "counts"),
    [
        ([], "No doors yet", ""),
        ([card()], "The door is fine", "1 locked"),
        ([card(), card()], "All 2 doors are fine", "2 locked"),
        ([card(), card(offline=True, card="warn")], "The controller of 1 door is offline", "1 locked, 1 unknown"),
        ([card(card="bad", state="Held open", open=True)], "gate: Held open", "1 open"),
        ([card(lockdown=True), card(lockdown=True)], "2 doors are in lockdown", "2 locked"),
        (
            [card(lockdown=True), card(lockdown=True, disobeyed=True, card="warn")],
            "gate: its controller does not do as it should",
            "2 locked",
        ),
    ],
)
def test_the_title_of_the_doors_is_the_answer(cards: list[dict[str, object]], title: str, counts: str) -> None:
    assert headline(cards, english) == title
    assert summary(cards, english) == counts


def test_a_receipt_names_places_in_words_and_times_on_the_sites_clock() -> None:
    at = datetime(2026, 11, 24, 14, 20, 3, tzinfo=UTC)
    view = ReceiptView(
        receipt="r1", subject="p1", modality=Modality.FACE, purpose=None, reason="withdraw", actor="linlan",
        requested_at=at, revision=2, closed=False, signature="ab", public_key="cd",
        locations=[
            LocationView(location="templates.db", outcome="gone", at=at),
            LocationView(location="lobby", outcome="pending", at=at),
        ],
    )  # fmt: skip
    paper = receipt_paper(view, ZoneInfo("Asia/Shanghai"), chinese, "徐蕾")
    assert [(place["label"], place["outcome"]) for place in paper["places"]] == [
        ("本机模板库：密钥已销毁", "22:20:03"),
        ("lobby", "会重试"),
    ]
    assert ("提出", "2026-11-24 22:20:03") in paper["facts"]


def test_every_kind_role_and_modality_has_its_words() -> None:
    assert set(words.KINDS) == set(DRIVERS)
    assert set(words.ROLES) == set(Role)
    assert set(words.MODALITIES) == set(Modality)


def test_every_act_that_may_need_two_people_has_its_words() -> None:
    assert set(approval_pages.KINDS) == set(ActKind)
    assert set(approval_pages.WHY_NOT) == set(WhyNot)
    modes = get_args(NewOrder.model_fields["mode"].annotation)
    assert set(approval_pages.MODES) == set(modes)


def codes_of_the_api() -> set[str]:
    """Every code that a problem is raised with, read from the source; and those it takes from an enumeration."""
    found = {fault.value for kind in (EnrolmentFault, ConsentFault) for fault in kind}
    found |= {"approved", "refused", "done", "failed", "expired"}  # the states of an act that waits no more
    for path in Path(edge_agent.api.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call):
                values = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
                constants = [node for value in values for node in ast.walk(value) if isinstance(node, ast.Constant)]
                found |= {node.value for node in constants if isinstance(node.value, str) and node.value}
    return found


def test_every_code_of_a_problem_has_its_sentence_in_both_languages() -> None:
    script = (Path(edge_agent.console.__file__).parent / "static" / "problems.js").read_text("utf-8")
    told = {
        code: (zh, en) for code, zh, en in re.findall(r'^  (\w+): \["([^"]+)", "([^"]+)"\],$', script, re.MULTILINE)
    }
    assert set(told) == codes_of_the_api()
    assert all(re.search("[\u4e00-\u9fff]", zh) and en.isascii() for zh, en in told.values())


def test_every_error_of_a_device_has_its_sentence() -> None:
    def below(kind: type[Exception]) -> set[str]:
        return {kind.__name__}.union(
            *(below(each) for each in kind.__subclasses__() if each.__module__ == kind.__module__)
        )

    assert set(words.DEVICE_FAULTS) == below(DeviceError) - {"DeviceError"} | {"DiskFull", ""}


def test_chinese_has_no_exclamation_and_no_please_on_a_button() -> None:
    for template in (Path(edge_agent.console.__file__).parent / "templates").glob("*.html"):
        text = template.read_text("utf-8")
        assert "！" not in text, template
        assert not re.search(r"<button[^>]*>[^<]*请(?!求)", text), template


def actions_of_the_audit() -> set[str]:
    """Every action that is written out where an audit row is made."""
    found = set()
    for path in Path(edge_agent.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if name not in {"Entry", "AuditEntry", "note", "_note"}:
                continue
            for given in [*call.args, *(k.value for k in call.keywords if k.arg == "action")]:
                words = [node.value for node in ast.walk(given) if isinstance(node, ast.Constant)]
                found |= {
                    word for word in words if isinstance(word, str) and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word)
                }
    return found


def test_every_action_of_the_audit_has_its_words_in_both_languages() -> None:
    found = actions_of_the_audit()
    assert len(found) > 50
    assert found <= set(ACTIONS)
    assert all(re.search("[一-鿿]", zh) and en.isascii() for zh, en in ACTIONS.values())
