"""What ships beside the code must be true."""

from __future__ import annotations

from pathlib import Path

from edge_agent.config import load

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_configuration_is_valid() -> None:
    config = load(ROOT / "deploy" / "agent.example.toml")
    assert [device.name for device in config.site.devices] == ["lobby", "workshop"]


def test_the_example_switches_no_biometric_on() -> None:
    assert load(ROOT / "deploy" / "agent.example.toml").site.modalities == {}


def test_lock_files_name_no_index_and_pin_every_package() -> None:
    for path in ROOT.glob("requirements*.txt"):
        text = path.read_text("utf-8")
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")
