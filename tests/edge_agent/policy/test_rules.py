from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.policy.rules import AccessRules

ROOT = Path(__file__).resolve().parents[3]
DOOR = {"name": "front", "device": "panel"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schedules": {"h": {"weekly": {"mon": ["18:00-08:00"]}}}}, "'18:00-08:00' ends before it starts"),
        ({"schedules": {"always": {}}}, "choose another"),
        ({"doors": [DOOR, DOOR]}, "doors: the name 'front' is used twice"),
        ({"doors": [{**DOOR, "zone_to": "lab"}]}, r"doors\[front\].zone: there is no 'lab'; allowed: none yet"),
        ({"doors": [{**DOOR, "interlock": ["front"]}]}, "names itself"),
        ({"doors": [{**DOOR, "interlock": ["back"]}]}, "there is no 'back'; allowed: front"),
        ({"doors": [{**DOOR, "mode": "lockdown"}]}, "ordered by a person"),
        ({"doors": [{**DOOR, "mode_times": [{"schedule": "always", "mode": "evacuation"}]}]}, "never scheduled"),
        (
            {"doors": [{**DOOR, "mode_times": [{"schedule": "x", "mode": "locked"}]}]},
            "there is no 'x'; allowed: always",
        ),
        ({"doors": [{**DOOR, "first_card": "x"}]}, "first_card: there is no 'x'"),
        ({"doors": [{**DOOR, "verify": []}]}, "at least 1"),
        ({"doors": [{**DOOR, "verify": [[]]}]}, "at least 1"),
        ({"doors": [{**DOOR, "verify": [["voice"]]}]}, "'card', 'pin', 'face' or 'finger'"),
        ({"doors": [{**DOOR, "open_s": 0}]}, "greater than or equal to 0.5"),
        ({"doors": [{**DOOR, "colour": "red"}]}, "Extra inputs"),
        ({"groups": [{"name": "g", "grants": [{"doors": ["x"]}]}]}, r"groups\[g\].doors: there is no 'x'"),
        ({"points": [{"name": "p"}]}, "needs a reader"),
        ({"points": [{"name": "p", "camera": "c", "door": "x"}]}, r"points\[p\].door: there is no 'x'"),
    ],
)
def test_a_rule_that_leads_nowhere_is_refused_with_field_value_and_what_is_allowed(
    document: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        AccessRules.model_validate(document)


def test_rules_survive_json() -> None:
    original = AccessRules.model_validate(
        {
            "calendar": {"holidays": {"2026-10-01": "public"}, "yearly": {"02-29": "public"}},
            "schedules": {"h": {"weekly": {"mon-fri": ["08:00-18:00", "22:00-02:00+1"]}}},
            "zones": [{"name": "lab", "anti_passback": "timed", "timed_minutes": 5}],
            "doors": [{**DOOR, "zone_to": "lab", "verify": [["card", "pin"], ["face"]]}],
            "groups": [{"name": "g", "grants": [{"doors": ["front"], "schedule": "h"}]}],
            "points": [{"name": "p", "door": "front", "reader": "r", "camera": "c"}],
        }
    )
    assert AccessRules.model_validate_json(original.model_dump_json()) == original


def _calls(path: Path) -> list[str]:
    return [
        node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_grants_are_made_by_the_access_policy_alone() -> None:
    makers = [p.relative_to(ROOT).as_posix() for p in (ROOT / "edge_agent").rglob("*.py") if "Granted" in _calls(p)]
    assert makers == ["edge_agent/policy/access.py"]


def test_one_module_tells_a_driver_to_open_a_door() -> None:
    openers = [p.relative_to(ROOT).as_posix() for p in (ROOT / "edge_agent").rglob("*.py") if "open_door" in _calls(p)]
    assert set(openers) <= {"edge_agent/doors/control.py"}
