from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.biometrics.in_use import Biometrics, provider_of
from edge_agent.config import Keys, SiteConfig
from edge_agent.database import utc_now
from edge_agent.policy.retention import Periods
from templates_store.errors import KeyUnavailable
from templates_store.keys.passphrase import passphrase
from templates_store.template import Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId
from tests.flows.site import consent, minutiae_of

WORDS = "correct horse battery staple"
ON = {
    "modalities": {"fingerprint": {"enabled": True, "target_fpir": 0.01}},
    "privacy": {"notice_version": "n2", "accepted_notices": ["n1"], "impact_assessment": "pia-1", "minor_age": 16},
    "retention": {"templates_days": 90},
    "devices": [
        {"name": "sensor", "kind": "fingerprint_uart", "address": "/dev/ttyUSB0", "biometrics": ["fingerprint"]},
        {"name": "other", "kind": "fingerprint_uart", "address": "/dev/ttyUSB1"},
    ],
}

ANN = SubjectId("ann")
GIVEN = consent("ann", Modality.FINGERPRINT, Purpose.ACCESS, now=utc_now())
FINGER = Template(
    TemplateId("x"),
    ANN,
    Modality.FINGERPRINT,
    Purpose.ACCESS,
    TemplateFormat("test-finger/1"),
    minutiae_of(7).encode(),
    2,
)


@pytest.fixture(autouse=True)
def _quick_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.biometrics.in_use.passphrase", functools.partial(passphrase, memory_kib=1024))


class Opened:
    """Biometrics over a site that can be changed."""

    def __init__(self, folder: Path, keys: Keys, site: dict[str, Any]) -> None:
        self.site = SiteConfig.model_validate(site)
        self.devices = {"S1": "sensor"}
        self.parts = Biometrics.open(
            keys,
            folder,
            tenant="t1",
            site=lambda: self.site,
            now=utc_now,
            device_of=lambda serial: self.devices.get(serial),
        )

    async def with_a_copy(self) -> None:
        """Somebody's finger, here and on the terminal S1."""
        await self.parts.follow()
        self.parts.store.enrol(GIVEN, [FINGER])
        self.parts.store.add_placement(
            ANN, Modality.FINGERPRINT, Purpose.ACCESS, device_serial="S1", slot="42/fingerprint/6"
        )
        await self.parts.follow()
        assert self.parts.store.pending_erasures() == []


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path, Keys(), ON)
    yield made
    made.parts.close()


async def test_what_the_enterprise_switched_on_is_in_force_and_loaded(opened: Opened) -> None:
    assert opened.parts.identification.finger is None
    await opened.parts.follow()
    assert opened.parts.identification.finger is not None
    assert opened.parts.identification.face is None  # a gateway without faces holds no model of them
    assert opened.parts.store.enabled(Modality.FINGERPRINT)
    assert not opened.parts.store.enabled(Modality.FACE)
    assert not opened.parts.galleries.sealed
    assert "unprotected" in opened.parts.warning


async def test_another_face_engine_is_in_use_at_once_not_at_the_next_start(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.biometrics.in_use.engine", lambda name: [name])  # a new object each time
    opened.site = SiteConfig.model_validate(ON | {"modalities": {"face": {"enabled": True}}})
    await opened.parts.follow()
    first = opened.parts.identification.face
    assert first == ["sface"]
    await opened.parts.follow()
    assert opened.parts.identification.face is first
    opened.site = SiteConfig.model_validate(ON | {"modalities": {"face": {"enabled": True, "engine": "dlib"}}})
    await opened.parts.follow()
    assert opened.parts.identification.face == ["dlib"]


async def test_what_is_switched_off_again_leaves_the_store_too(opened: Opened) -> None:
    await opened.parts.follow()
    opened.site = SiteConfig()
    await opened.parts.follow()
    assert not opened.parts.store.enabled(Modality.FINGERPRINT)
    assert opened.parts.terms().switched_on == frozenset()


@pytest.mark.parametrize("restarted", [True, False])
async def test_what_is_switched_on_again_is_searched_again(tmp_path: Path, restarted: bool) -> None:
    first = Opened(tmp_path, Keys(), ON)
    await first.parts.follow()
    first.parts.store.enrol(GIVEN, [FINGER])
    first.site = SiteConfig()
    await first.parts.follow()
    if restarted:
        first.parts.close()
        first = Opened(tmp_path, Keys(), {})
        await first.parts.follow()
        assert first.parts.galleries.count() == 0
    first.site = SiteConfig.model_validate(ON)
    await first.parts.follow()
    assert not first.parts.galleries.sealed
    assert first.parts.galleries.count(Modality.FINGERPRINT, Purpose.ACCESS) == 1
    probe = minutiae_of(7)
    [found] = first.parts.galleries.search(Modality.FINGERPRINT, Purpose.ACCESS, FINGER.format.pipeline, probe, k=1)
    assert found.subject_id == "ann"
    first.parts.close()


@pytest.mark.parametrize(
    "change",
    [
        {"privacy": {"notice_version": "n3", "impact_assessment": "pia-1"}},
        {"privacy": ON["privacy"] | {"high_risk": True}},
        {"modalities": {"fingerprint": {"enabled": False}}},
        {"devices": [{"name": "sensor", "kind": "fingerprint_uart", "address": "/dev/ttyUSB0"}]},
    ],
    ids=["notice", "high risk", "modality", "device"],
)
async def test_copies_on_terminals_are_owed_when_nothing_allows_them_any_more(
    opened: Opened, change: dict[str, Any]
) -> None:
    await opened.with_a_copy()
    opened.site = SiteConfig.model_validate(ON | change)
    await opened.parts.follow()
    assert [each.slot for each in opened.parts.store.pending_erasures("S1")] == ["42/fingerprint/6"]
    assert opened.parts.store.statistics().templates == {"fingerprint": 1}  # here they wait, sealed


async def test_a_copy_on_a_terminal_that_is_not_known_yet_is_owed_once_it_is(opened: Opened) -> None:
    await opened.with_a_copy()
    opened.devices.clear()
    await opened.parts.keep_house(Periods())
    assert opened.parts.store.pending_erasures() == []
    opened.devices["S1"] = "other"
    await opened.parts.keep_house(Periods())
    assert len(opened.parts.store.pending_erasures()) == 1


def test_terms_are_the_configurations(opened: Opened) -> None:
    terms = opened.parts.terms()
    assert terms.switched_on == {Modality.FINGERPRINT}
    assert (terms.notice_version, terms.accepted_versions) == ("n2", frozenset({"n1"}))
    assert (terms.templates_days, terms.assessment, terms.minor_age) == (90, "pia-1", 16)


@pytest.mark.parametrize(
    ("device", "modality", "on"),
    [
        ("sensor", Modality.FINGERPRINT, True),
        ("sensor", Modality.FACE, False),
        ("other", Modality.FINGERPRINT, False),
        ("nowhere", Modality.FINGERPRINT, False),
    ],
)
def test_each_sensor_has_a_switch_of_its_own(opened: Opened, device: str, modality: Modality, on: bool) -> None:
    assert opened.parts.sensor_on(device, modality) is on


async def test_a_keepers_words_unseal_and_others_do_not(tmp_path: Path) -> None:
    keys = Keys(provider="passphrase")
    first = Opened(tmp_path, keys, ON)
    assert first.parts.sealed
    await first.parts.follow()  # sealed: nothing is loaded and nothing fails
    assert first.parts.identification.finger is None
    await first.parts.unseal(WORDS)
    assert not first.parts.sealed
    first.parts.close()
    again = Opened(tmp_path, keys, ON)
    with pytest.raises(KeyUnavailable):
        await again.parts.unseal("somebody else's words")
    assert again.parts.sealed
    assert again.parts.galleries.sealed
    await again.parts.unseal(WORDS)
    assert not again.parts.galleries.sealed
    again.parts.close()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (Keys(provider="systemd"), "systemd"),
        (Keys(provider="pkcs11"), "pin_file"),
        (Keys(provider="pkcs11", path=Path("/usr/lib/none.so"), options={"pin_file": "/nowhere/pin"}), "/nowhere/pin"),
    ],
)
def test_a_key_that_is_not_to_be_had_seals_the_store_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Keys, says: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    made = Opened(tmp_path, keys, ON)
    assert made.parts.sealed
    assert says in made.parts.store.seal_reason
    made.parts.close()


def test_the_key_file_lies_beside_the_database_unless_configured(tmp_path: Path) -> None:
    found = provider_of(Keys(), tmp_path)
    assert found is not None
    assert found.keys() == {}
    assert (tmp_path / "templates.key").stat().st_mode & 0o777 == 0o600
    elsewhere = provider_of(Keys(path=tmp_path / "usb" / "kek"), tmp_path)
    assert elsewhere is not None
    elsewhere.keys()
    assert (tmp_path / "usb" / "kek").exists()
    assert provider_of(Keys(provider="passphrase"), tmp_path) is None
