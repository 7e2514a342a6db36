"""The command line as a whole: what every command promises, completion, exit codes. Against an agent that is running,
tests/flows/test_demo_and_command_line.py asks it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from edge_agent.__main__ import app

PROMISED = {
    "run", "demo", "check", "status", "devices", "doors", "people", "enrol-folder", "token", "config", "keys", "backup",
    "restore", "audit", "calibrate", "decommission", "quarantine", "upstreams", "incidents", "identify", "version",
    "sync", "reader-key", "clear-log", "accounts", "options",
}  # fmt: skip
WITHOUT_JSON = {"run", "demo"}  # these are processes, not questions


def commands(group: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


ALL = dict(commands(typer.main.get_command(app)))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'edge-agent'; from edge_agent.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment,
    )  # fmt: skip


def test_every_promised_command_is_there() -> None:
    assert {name.split()[0] for name in ALL} == PROMISED


@pytest.mark.parametrize("name", sorted(set(ALL) - WITHOUT_JSON))
def test_every_command_speaks_to_machines_and_says_what_it_does(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    assert "--json" in options
    assert " · " in (ALL[name].help or "")  # in both languages


def test_the_shell_completes_commands() -> None:
    for shell, words in (("bash", {"COMP_WORDS": "edge-agent quarantine re", "COMP_CWORD": "2"}), ("zsh", {})):
        environment = {"_EDGE_AGENT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "edge-agent quarantine re"}
        assert "release" in run(**environment, **words).stdout


def test_completion_is_installed_into_the_shells_own_files(tmp_path: Path) -> None:
    done = run("--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    written = [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_EDGE_AGENT_COMPLETE" in text for text in written)


def test_exit_codes_are_documented_and_kept() -> None:
    shown = run("--help", COLUMNS="200")
    assert shown.returncode == 0
    assert "Exit status: 0" in shown.stdout
    assert run("no-such-command").returncode == 2
    assert run("status", "--data", "/nonexistent").returncode == 1
    assert run("version", "--json").returncode == 0
