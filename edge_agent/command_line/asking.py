"""Asking the running agent: where it is, its words for people, `--json` for machines, exit status 1 with a reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_agent.command_line.local_client import LocalClient, NotRunning, Refused
from edge_agent.config import ConfigError, load

# What goes to a file or to grep is not cut to the width of a screen that is not there.
out = Console(width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, soft_wrap=True)  # a sentence stays one line for whoever searches it

DEFAULT_CONFIG = Path("/etc/edge-agent/agent.toml")
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="配置文件 · configuration file", envvar="EDGE_AGENT_CONFIG")
]
FolderOption = Annotated[
    Path | None, typer.Option("--data", help="数据目录，代替配置文件 · data folder instead of a file")
]
Json = Annotated[bool, typer.Option("--json", help="机器可读 · machine-readable")]
LONG_S = 900.0  # for what takes minutes: a push terminal takes its commands when it calls
TONES = {"online": "green", "done": "green", "offline": "red", "needs_person": "red", "failed": "red", "denied": "red"}


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def data_folder(config: Path, data: Path | None) -> Path:
    if data is not None:
        return data
    try:
        return load(config).gateway.data_dir
    except ConfigError as exc:
        err.print(str(exc), highlight=False)
        raise typer.Exit(1) from None


@contextmanager
def running(config: Path, data: Path | None) -> Iterator[LocalClient]:
    """The agent, or its words and exit status 1."""
    try:
        with closing(LocalClient(data_folder(config, data))) as client:
            yield client
    except NotRunning as exc:
        err.print(f"[red]没有运行 · not running:[/] {escape(str(exc))}", highlight=False)
        raise typer.Exit(1) from None
    except Refused as exc:
        err.print(f"[red]没有完成 · not done:[/] {escape(str(exc))}", highlight=False)
        raise typer.Exit(1) from None


def show(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], *, as_json: bool) -> None:
    """A table, or the rows as they came."""
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, header_style="dim")
    for heading, _ in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = []
        for _, key in columns:
            value = row.get(key)
            text = escape(
                "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            )
            tone = TONES.get(text)
            cells.append(f"[{tone}]{text}[/]" if tone else text)
        table.add_row(*cells)
    out.print(table)
