"""edge-agent: what an operator does on the gateway itself. Exit status 0 done, 1 not done, 2 wrong words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from device_drivers import catalog
from device_drivers.errors import DeviceError
from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.api.server import bootstrap_token
from edge_agent.config import AgentConfig, ConfigError, Device, load
from edge_agent.database import StorageError, utc_now
from edge_agent.identity_keys import BadKeyFile

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
DEMO_FACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "faces" / "lfw"
PROBE_TIMEOUT_S = 15.0
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
    faces: Annotated[
        Path | None, typer.Option(help="照片文件夹 姓名/照片.jpg · a folder of photographs, Name/photo.jpg")
    ] = None,
) -> None:
    """模拟园区 · a simulated site: terminals on real sockets, the agent, an upstream that keeps what it got"""
    from edge_agent import demo as demonstration

    if not plain and not sys.stdout.isatty():
        plain = True
    logging.getLogger().setLevel(logging.ERROR)
    if faces is None and DEMO_FACES.is_dir():
        faces = DEMO_FACES
    status = asyncio.run(demonstration.run(folder, api_port=port, seconds=seconds, plain=plain, faces=faces))
    raise typer.Exit(status)


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """在真实硬件上运行 · run on real hardware"""
    settings = read_config(config)
    try:
        asyncio.run(_run(settings))
    except* (StorageError, BadKeyFile, ConfigError) as group:
        for exc in group.exceptions:
            err.print(f"[red]停止 · stopped:[/] {exc}", highlight=False)
        raise typer.Exit(1) from None


async def _run(settings: AgentConfig) -> None:
    """Until SIGTERM or Ctrl-C; then everything ends in order."""
    agent = await Agent.open(settings)
    working = asyncio.create_task(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, working.cancel)
    try:
        token = await bootstrap_token(agent.database, now=utc_now())
        if token is not None:
            out.print(f"一次性口令 · one-time token: [b]{token}[/]", highlight=False)
        with contextlib.suppress(asyncio.CancelledError):
            await working
    finally:
        await agent.close()


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    probe: Annotated[bool, typer.Option(help="逐台连接 · connect to each device")] = True,
    as_json: Json = False,
) -> None:
    """检查配置并探测每台设备 · validate a configuration and probe each device"""
    settings = read_config(config)
    results = asyncio.run(_probe(settings)) if probe else []
    if as_json:
        print_json([{"device": name, "ok": ok, "found": words} for name, ok, words in results])
    else:
        out.print(f"[green]●[/] {config}: 配置有效 · the configuration is valid", highlight=False)
        for name, ok, words in results:
            out.print(f"{'[green]●[/]' if ok else '[red]○[/]'} {name}: {words}", highlight=False)
    if not all(ok for _, ok, _ in results):
        raise typer.Exit(1)


async def _probe(settings: AgentConfig) -> list[tuple[str, bool, str]]:
    """(device, reachable, in plain words). Devices that call us cannot be probed."""

    async def one(device: Device) -> tuple[str, bool, str]:
        if device.kind == "adms":
            return device.name, True, "会来连接我们 · this one calls us"
        try:
            driver = catalog.make(device.for_driver(settings.site.timezone))
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    found = await driver.probe()
            finally:
                await driver.close()
        except (DeviceError, ValueError, TimeoutError) as exc:
            return device.name, False, str(exc) or f"no answer within {PROBE_TIMEOUT_S:g} s"
        return device.name, True, f"{found.vendor} {found.model} · {found.serial} · {found.firmware}"

    return list(await asyncio.gather(*(one(device) for device in settings.site.devices)))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
