from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge_agent.people.credentials import PinCheck, Rights, rights_of
from edge_agent.people.roster import Taken
from templates_store.template import SubjectId
from tests.flows.site import START, Site, site

ANN = SubjectId("ann")


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


async def test_a_card_or_number_leads_to_the_person_with_rights_and_validity(s: Site) -> None:
    rights = Rights(groups=("staff", "guards"), opener=True, passes_lockdown=True, anti_passback_exempt=True)
    until = START + timedelta(days=1)
    await s.add("ann", card="00ab12", number="42", rights=rights, valid_until=until)
    by_card, by_number = await s.credentials.by_card("AB12"), await s.credentials.by_number("42", device="reader")
    assert by_card == by_number
    assert by_card is not None
    assert (by_card.subject_id, by_card.groups, by_card.valid_until) == ("ann", {"staff", "guards"}, until)
    assert (by_card.opener, by_card.passes_lockdown, by_card.anti_passback_exempt) == (True, True, True)


@pytest.mark.parametrize("number", ["", " ", "1" * 41, "12 34", "42'--", "４２"])
async def test_what_can_be_no_card_or_number_finds_nobody(s: Site, number: str) -> None:
    await s.add("ann", card="1234", number="42")
    assert await s.credentials.by_card(number) is None
    assert await s.credentials.by_number(number + "x", device="reader") is None


@pytest.mark.parametrize(
    ("entered", "expected"),
    [
        ("4711", PinCheck.RIGHT),
        ("4712", PinCheck.DURESS),
        ("0000", PinCheck.WRONG),
        ("", PinCheck.WRONG),
        ("4711'; DROP TABLE pins;--", PinCheck.WRONG),
        ("4" * 5000, PinCheck.WRONG),
    ],
)
async def test_pins(s: Site, entered: str, expected: PinCheck) -> None:
    await s.add("ann", pin="4711")
    await s.credentials.set_duress_pin(ANN, "4712")
    assert await s.credentials.check_pin(ANN, entered) is expected


async def test_pins_rest_as_argon2id_and_nobody_has_none(s: Site) -> None:
    await s.add("ann", pin="4711")
    await s.credentials.set_duress_pin(ANN, "4712")
    [(plain, duress)] = await s.database.read(
        lambda c: c.execute("SELECT p.hash, a.duress_pin FROM pins p JOIN access_people a USING (subject)").fetchall()
    )
    assert plain.startswith("$argon2id$")
    assert duress.startswith("$argon2id$")
    assert await s.credentials.check_pin(None, "4711") is PinCheck.WRONG


async def test_the_duress_pin_differs_from_the_ordinary_one_and_belongs_to_somebody(s: Site) -> None:
    await s.add("ann", pin="4711")
    with pytest.raises(Taken, match="must differ"):
        await s.credentials.set_duress_pin(ANN, "4711")
    with pytest.raises(KeyError):
        await s.credentials.set_duress_pin(SubjectId("nobody"), "4712")
    with pytest.raises(ValueError, match="4 to 12 digits"):
        await s.credentials.set_duress_pin(ANN, "12")


async def test_new_rights_replace_the_old_ones_and_keep_the_duress_pin(s: Site) -> None:
    await s.add("ann", pin="4711", rights=Rights(groups=("staff",), opener=True))
    await s.credentials.set_duress_pin(ANN, "4712")
    await s.credentials.set_rights([ANN], Rights(groups=("guards", "guards"), duress_finger=3))
    found = await s.database.read(lambda c: rights_of(c, "ann"))
    assert found == Rights(groups=("guards",), duress_finger=3)
    assert await s.credentials.check_pin(ANN, "4712") is PinCheck.DURESS
    assert await s.credentials.duress_finger(ANN) == 3


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (Rights(groups=("",)), "1 to 64 characters"),
        (Rights(groups=tuple(str(n) for n in range(201))), "at most 200"),
        (Rights(duress_finger=11), "allowed are 1 to 10"),
    ],
)
async def test_impossible_rights_are_refused_and_nobody_is_changed(s: Site, rights: Rights, said: str) -> None:
    await s.add("ann", rights=Rights(groups=("staff",)))
    await s.add("bob", rights=Rights(groups=("staff",)))
    with pytest.raises(ValueError, match=said):
        await s.credentials.set_rights([ANN, SubjectId("bob")], rights)
    with pytest.raises(KeyError):
        await s.credentials.set_rights([ANN, SubjectId("nobody")], Rights())
    assert (await s.database.read(lambda c: rights_of(c, "ann"))).groups == ("staff",)
