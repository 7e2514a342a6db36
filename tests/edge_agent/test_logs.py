from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import logs
from tests.root_logger import as_it_was


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    with as_it_was():
        yield


def test_a_file_holds_one_json_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.log"
    logs.configure(file=file)
    logging.getLogger("edge_agent.x").info("device_lost device=%s reason=%s", "lobby", "掉线")
    line = json.loads(file.read_text("utf-8"))
    assert (line["event"], line["level"], line["logger"]) == ("device_lost", "info", "edge_agent.x")
    assert "reason=掉线" in line["message"]


def test_a_traceback_stays_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.log"
    logs.configure(file=file)
    try:
        (tmp_path / "nothing here").read_bytes()
    except OSError:
        logging.getLogger("x").exception("write_failed")
    [text] = file.read_text("utf-8").splitlines()
    assert "FileNotFoundError" in json.loads(text)["traceback"]


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    logs.configure(file=tmp_path / "agent.log")
    for n in range(200):
        logging.getLogger("x").info("event n=%d", n)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["agent.log", *(f"agent.log.{n}" for n in range(1, logs.KEPT_FILES + 1))]


def test_libraries_that_log_every_request_are_quiet(tmp_path: Path) -> None:
    logs.configure(file=tmp_path / "agent.log")
    logging.getLogger("httpx").info("GET https://hr.example/?token=abc")
    assert (tmp_path / "agent.log").read_text("utf-8") == ""
