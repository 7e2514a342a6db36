from __future__ import annotations

from typing import Any

import pytest

from edge_agent.policy.rules import AccessRules
from edge_agent.policy.two_people import ActKind, loosened

OFFICE_HOURS = {"weekly": {"mon-fri": ["09:00-17:00"]}}
NIGHT = {"weekly": {"daily": ["22:00-06:00+1"]}}


def rules(*doors: dict[str, Any], **more: Any) -> AccessRules:
    document = {"schedules": {"day": OFFICE_HOURS, "night": NIGHT}, "doors": [{"device": "panel"} | d for d in doors]}
    return AccessRules.model_validate(document | more)


GATE = {"name": "gate"}
DAILY = GATE | {"mode_times": [{"schedule": "day", "mode": "unlocked"}]}
SHUT = GATE | {"mode_times": [{"schedule": "night", "mode": "locked"}]}
FIRST_SHUT = GATE | {"mode_times": [*SHUT["mode_times"], *DAILY["mode_times"]]}
HOLIDAY = {"calendar": {"working_days": {"2026-11-28": "fri"}}}
LONGER = {"schedules": {"day": NIGHT, "night": NIGHT}}
OPENS = {ActKind.DOOR_OPEN, ActKind.LOCKDOWN}


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (rules(GATE), rules(GATE), set()),
        (rules(GATE), rules(GATE, {"name": "new"}), set()),
        (rules(GATE), rules(GATE | {"mode": "unlocked"}), OPENS),
        (rules(GATE), rules(GATE | {"mode": "office"}), OPENS),
        (rules(GATE), rules(GATE | {"mode": "locked"}), set()),
        (rules(GATE), rules(DAILY), OPENS),
        (rules(GATE), rules(GATE, {"name": "new", "mode": "unlocked"}), OPENS),
        (rules(DAILY), rules(DAILY | {"open_s": 9}), set()),
        (rules(DAILY), rules(GATE), set()),
        (rules(DAILY), rules(DAILY, **LONGER), OPENS),
        (rules(DAILY), rules(DAILY, **HOLIDAY), OPENS),
        (rules(SHUT), rules(SHUT, **LONGER, **HOLIDAY), set()),
        (rules(FIRST_SHUT), rules(DAILY), OPENS),
        (rules(GATE), rules(), {ActKind.LOCKDOWN}),
        (rules(GATE), rules({"name": "renamed"}), {ActKind.LOCKDOWN}),
        (rules(GATE), rules(GATE | {"relay": 2}), {ActKind.LOCKDOWN}),
    ],
)
def test_what_lets_doors_stand_open_or_takes_them_from_a_lockdown_counts_as_the_act(
    before: AccessRules, after: AccessRules, kinds: set[ActKind]
) -> None:
    assert loosened(before, after, same_clock=True, templates_days=(30, 30)).kinds() == kinds


def test_another_time_zone_moves_the_times_at_which_doors_stand_open() -> None:
    for document, kinds in ((rules(DAILY), OPENS), (rules(SHUT), set())):
        assert loosened(document, document, same_clock=False, templates_days=(30, 30)).kinds() == kinds


@pytest.mark.parametrize(
    ("days", "held"),
    [((30, 30), False), ((30, 365), False), ((30, None), True), ((30, 29), True), ((None, 1), False)],
)
def test_keeping_templates_for_less_long_counts_as_erasure(days: tuple[int | None, int | None], held: bool) -> None:
    found = loosened(rules(), rules(), same_clock=True, templates_days=days)
    assert found.kinds() == ({ActKind.ERASURE} if held else set())
