"""`make run` and the command line as a person has them: one process, its output, and commands beside it."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.api import accounts
from edge_agent.policy.roles import Role

START_S = 60
pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("demo")]


@dataclass
class Demo:
    """A running demonstration; `until` reads its output."""

    process: subprocess.Popen[str]
    folder: Path
    lines: list[str] = field(default_factory=list)
    said: str = ""  # on standard error, by the last command

    def until(self, words: str) -> str:
        """The first new line that holds `words`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return line
        raise AssertionError(f"the demonstration ended without {words!r}:\n" + "".join(self.lines[-40:]))

    def saw(self, *words: str) -> None:
        """Some line holds all of `words`, among those read already or those to come."""
        while not any(all(word in line for word in words) for line in self.lines):
            self.until(words[0])

    def command(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent", *words, "--data", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.said = done.stderr
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def asked(self, *words: str) -> Any:
        return json.loads(self.command(*words, "--json"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "edge_agent", "demo", "--plain", "--port", "0", "--folder", str(folder),
            "--faces", str(folder / "none"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    made = Demo(process, folder)
    try:
        made.until("devices=8/8")
        yield made
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_says_where_the_console_is_and_how_to_get_in(demo: Demo) -> None:
    welcome = "".join(demo.lines[:4])
    assert "https://127.0.0.1:" in welcome
    assert "one-time token" in welcome
    assert "SHA-256" in welcome


@pytest.mark.parametrize(
    "words",
    [
        ("south-gate", "卡片 Card", "已开门 Opened"),
        ("south-gate", "指纹 Finger", "已开门 Opened"),
        ("server-room", "组合验证 Combined", "已开门 Opened"),
        ("south-gate", "未识别 Not recognised"),
        ("server-room", "没有权限 No permission"),
        ("server-room", "验证未通过 Not verified"),
        ("强行开门", "告警 Alarm"),
        ("超时未关", "告警 Alarm"),
        ("防拆", "告警 Alarm"),
    ],
    ids=" ".join,
)
def test_every_way_through_a_door_every_refusal_and_every_alarm_is_a_line(demo: Demo, words: tuple[str, ...]) -> None:
    demo.saw(*words)


def test_a_webcam_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "demo", "--webcam", "250", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "/dev/video250" in done.stderr


def test_status_and_devices_speak_to_machines(demo: Demo) -> None:
    assert demo.asked("status")["devices"] == 8
    kinds = {device["kind"] for device in demo.asked("devices")}
    assert kinds == {"zkteco", "adms", "isapi", "uhppote", "osdp", "fingerprint_uart"}


def test_a_scan_of_the_network_is_asked_of_the_agent_and_written_down(demo: Demo) -> None:
    assert all(found["serial"] for found in demo.asked("devices", "--scan"))  # the simulated ones hear no broadcast
    assert any(row["action"] == "device.scan" for row in demo.asked("audit", "show"))


def test_a_door_is_opened_and_the_audit_knows(demo: Demo) -> None:
    assert "done" in demo.command("doors", "open", "south-gate")
    assert any(row["action"] == "door.open" for row in demo.asked("audit", "show"))
    assert demo.asked("audit", "verify")["intact"] is True


def test_configuration_is_code(demo: Demo, tmp_path: Path) -> None:
    document = json.loads(demo.command("config", "show"))
    document["site"] = "another name"
    file = tmp_path / "site.json"
    file.write_text(json.dumps(document), "utf-8")
    [change] = demo.asked("config", "diff", str(file))["changes"]
    assert (change["path"], change["after"]) == ("site", "another name")
    assert demo.asked("config", "apply", str(file))["version"] == 2
    demo.command("config", "rollback", "1")
    assert [version["version"] for version in demo.asked("config", "history")] == [3, 2, 1]


def test_people_come_from_a_file_and_bad_rows_are_named(demo: Demo, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("name,user_id\n新员工,7001\n,7002\n", "utf-8")
    done = demo.command("people", "import", str(file), "--json", status=1)
    report = json.loads(done)
    assert report["added"] == 1
    assert report["refused"][0]["line"] == 3
    assert [person["name"] for person in demo.asked("people", "list", "7001")] == ["新员工"]


def test_what_an_upstream_refused_is_shown_with_its_reason_and_judged(demo: Demo) -> None:
    with closing(sqlite3.connect(demo.folder / "agent.db", timeout=20)) as database, database:
        [(sink,)] = database.execute("SELECT name FROM sinks LIMIT 1")
        delivered = database.execute("SELECT last FROM settled WHERE sink = ? ORDER BY first", (sink,)).fetchone()[0]
        for sequence in (delivered - 1, delivered):
            database.execute(
                "INSERT INTO quarantine VALUES (?, ?, 'answered 422', '{\"error\": \"no work code\"}', ?, 0)",
                (sink, sequence, "2026-11-23T08:00:00.000+00:00"),
            )
        database.execute("UPDATE sinks SET delivered = delivered - 2 WHERE name = ?", (sink,))
    assert "answered 422" in demo.command("status")
    assert demo.asked("status")["refused"] == [{"upstream": sink, "reason": "answered 422", "count": 2}]
    assert [item["event"]["sequence"] for item in demo.asked("quarantine", "list")] == [delivered - 1, delivered]
    assert "answered 422" in demo.command("quarantine", "list")
    assert "no work code" in demo.command("quarantine", "show", sink, str(delivered))
    assert demo.asked("quarantine", "discard", sink, str(delivered)) == {"count": 1}
    assert demo.asked("quarantine", "release", sink) == {"count": 1}
    demo.command("quarantine", "show", sink, str(delivered), status=1)
    assert demo.asked("upstreams", "list")[0]["balanced"]


def test_a_log_is_not_cleared_by_a_slip(demo: Demo) -> None:
    demo.command("clear-log", "lobby", "--confirm", "workshop", status=1)
    demo.command("clear-log", "warehouse", "--confirm", "warehouse", status=1)  # it pushes, and keeps none for us


def test_a_recipient_is_stopped_and_comes_back(demo: Demo) -> None:
    [name] = [upstream["name"] for upstream in demo.asked("upstreams", "list")][:1]
    demo.command("upstreams", "revoke", name)
    assert demo.asked("upstreams", "list")[0]["revoked"] is True
    demo.command("upstreams", "reinstate", name)
    assert demo.asked("upstreams", "list")[0]["revoked"] is False


def test_keys_tokens_incidents_and_thresholds_speak_to_machines(demo: Demo) -> None:
    assert demo.asked("keys", "show")["sealed"] is False
    assert demo.asked("keys", "rotate")["kek"]
    assert demo.asked("token", "issue", "till", "events:read")["token"].startswith("eat_")
    assert demo.asked("token", "revoke", "till")["done"] == "revoke"
    assert {curve["pipeline"] for curve in demo.asked("calibrate")} >= {"yunet-2023mar+sface-2021dec/1"}
    opened = demo.asked("incidents", "open", "U 盘丢失", "--kind", "loss")
    assert opened["id"] in demo.command("incidents", "list")
    assert "U 盘丢失" in demo.command("incidents", "report", opened["id"])
    assert json.loads(demo.command("doors", "open", "south-gate", "--json"))["state"] == "done"


def test_an_account_gets_a_password_that_its_maker_does_not_know(demo: Demo) -> None:
    with closing(sqlite3.connect(demo.folder / "agent.db", timeout=20)) as database, database:
        accounts.add(database, "chenyu", role=Role.OPERATOR, password_hash=None, now=datetime.now(UTC))
    given = demo.asked("accounts", "reset", "chenyu")
    assert len(given["password"]) >= 12
    with closing(sqlite3.connect(demo.folder / "agent.db", timeout=20)) as database:
        [(kept,)] = database.execute("SELECT password FROM accounts WHERE name = 'chenyu'")
    assert kept
    assert given["password"] not in kept
    demo.command("accounts", "reset", "nobody", status=1)


def test_what_takes_two_people_is_nothing_for_a_command_line_that_is_nobody(demo: Demo, tmp_path: Path) -> None:
    document = json.loads(demo.command("config", "show"))
    document["two_people"] = {"acts": ["disclosure", "door_open"], "minutes": 60}
    file = tmp_path / "site.json"
    file.write_text(json.dumps(document), "utf-8")
    demo.command("config", "apply", str(file))
    assert not demo.command("doors", "open", "south-gate", status=1)
    assert "takes two people" in demo.said
    assert demo.asked("audit", "verify")["intact"] is True


def test_a_backup_is_made_while_it_runs(demo: Demo) -> None:
    assert demo.asked("backup")["path"].endswith("gateway.backup")
    assert (demo.folder / "backup" / "gateway.backup").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_ends_it_with_everything_delivered(demo: Demo) -> None:
    demo.process.send_signal(signal.SIGINT)
    summary = json.loads(demo.until('"punched"'))
    assert summary["punched"] > 0
    assert summary["stored"] == summary["punched"]
    assert summary["still_on_the_way"] == 0
    assert demo.process.wait(30) == 0


def test_without_an_agent_the_command_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "status", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "edge-agent run" in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_certificate_that_is_not_there_is_said_in_words(tmp_path: Path, command: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        f'gateway = {{ name = "gw", tenant = "t", data_dir = "{tmp_path}" }}\n'
        f'api = {{ listen = "127.0.0.1:0", certificate = "{tmp_path}/no.pem", private_key = "{tmp_path}/no.key" }}\n',
        "utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", command, "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"api.certificate: '{tmp_path}/no.pem' — No such file or directory; allowed is" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_what_is_wrong_in_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[gateway]\nname = "gw"\ntenant = "t"\n[[site.devices]]\nname = "a"\nkind = "zkteko"\n', "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "check", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for word in ("site.devices[0].kind", "zkteko", "zkteco"):
        assert word in done.stderr
