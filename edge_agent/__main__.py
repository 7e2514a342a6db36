"""edge-agent: what an operator does on the gateway itself. Exit status 0 done, 1 not done, 2 wrong words."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge_agent import __version__
from edge_agent.config import AgentConfig, ConfigError, load

app = typer.Typer(
    name="edge-agent",
    help="考勤与门禁边缘网关 · Edge gateway for attendance terminals, doors and biometrics",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="配置文件 · configuration file", envvar="EDGE_AGENT_CONFIG")
]
DEFAULT_CONFIG = Path("/etc/edge-agent/agent.toml")
Json = Annotated[bool, typer.Option("--json", help="机器可读 · machine-readable")]


def read_config(path: Path) -> AgentConfig:
    try:
        return load(path)
    except ConfigError as exc:
        err.print(f"[red]配置不能用 · the configuration cannot be used[/]\n{exc}", highlight=False)
        raise typer.Exit(1) from None


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="调试日志 · debug log")] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@app.command()
def version() -> None:
    """版本 · the version"""
    out.print(__version__, highlight=False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="数据放在哪里 · where the demonstration keeps its files")] = Path(
        "var/demo"
    ),
    seconds: Annotated[float | None, typer.Option(min=1, help="运行多久 · how long to run")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="控制台端口 · port of the console")] = 8443,
    plain: Annotated[bool, typer.Option(help="每秒一行 · one line a second")] = False,
) -> None:
    """模拟园区 · a simulated site: terminals on real sockets, the agent, an upstream that keeps what it got"""
    from edge_agent import demo as demonstration

    if not plain and not sys.stdout.isatty():
        plain = True
    logging.getLogger().setLevel(logging.ERROR)
    raise typer.Exit(asyncio.run(demonstration.run(folder, api_port=port, seconds=seconds, plain=plain)))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
