"""edge-agent: what an operator does on the gateway itself.

The commands that talk to a running agent start in a moment; those that are one themselves import what they
need when they are called, because engines and drivers take a second to load.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from edge_agent import __version__, logs
from edge_agent.command_line import commands, device_commands, oversight_commands
from edge_agent.command_line.asking import (
    DEFAULT_CONFIG,
    ConfigOption,
    FolderOption,
    Json,
    data_folder,
    err,
    out,
    print_json,
)
from edge_agent.config import AgentConfig, ConfigError, load
from edge_agent.database import Database, StorageError, utc_now
from edge_agent.identity_keys import BadKeyFile
from edge_agent.usable import listeners_unusable, unusable

if TYPE_CHECKING:
    from edge_agent.config import Device
    from edge_agent.decommission import Report

EXIT_CODES = (
    "退出码 · Exit status: 0 完成 done; 1 没有完成，原因在标准错误 not done, standard error says why"
    " (拒绝、没有运行、部分失败 · refused, not running, in part); 2 命令写错 wrong words."
    " 机器用 --json · machines use --json."
)

app = typer.Typer(
    name="edge-agent",
    help="考勤与门禁边缘网关 · Edge gateway for attendance terminals, doors and biometrics",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(device_commands.app)
app.add_typer(commands.app)
for group_name, group in (*device_commands.GROUPS, *commands.GROUPS, *oversight_commands.GROUPS):
    app.add_typer(group, name=group_name)

DEMO_FACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "faces" / "lfw"
PROBE_TIMEOUT_S = 15.0


def read_config(path: Path, *, check: bool = False) -> AgentConfig:
    try:
        return load(path, check=check)
    except ConfigError as exc:
        err.print(f"[red]配置不能用 · the configuration cannot be used[/]\n{exc}", highlight=False)
        raise typer.Exit(1) from None


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="调试日志 · debug log")] = False,
    log_json: Annotated[bool, typer.Option(help="JSON 日志 · log as JSON lines")] = False,
    log_file: Annotated[Path | None, typer.Option(help="日志文件，自动轮转 · a log file that rotates")] = None,
) -> None:
    logs.configure(verbose=verbose, as_json=log_json, file=log_file)


@app.command()
def version(as_json: Json = False) -> None:
    """版本 · the version"""
    if as_json:
        print_json({"version": __version__})
    else:
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
    webcam: Annotated[
        str,
        typer.Option(
            help="南门用这个 USB 摄像头（0 或 /dev/video0）· this USB camera at the south gate, not photographs"
        ),
    ] = "",
) -> None:
    """模拟园区 · a simulated site: terminals on real sockets, the agent, an upstream that keeps what it got"""
    from device_drivers.errors import LinkError
    from edge_agent import demo as demonstration

    if not plain and not sys.stdout.isatty():
        plain = True
    logging.getLogger().setLevel(logging.ERROR)
    if faces is None and DEMO_FACES.is_dir():
        faces = DEMO_FACES
    try:
        status = asyncio.run(
            demonstration.run(folder, api_port=port, seconds=seconds, plain=plain, faces=faces, webcam=webcam)
        )
    except LinkError as exc:
        err.print(f"[red]摄像头不能用 · the camera cannot be used:[/] {exc}", highlight=False)
        status = 1
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
    from edge_agent.agent import Agent
    from edge_agent.decommission import ordered
    from edge_agent.server import bootstrap_token
    from templates_store.memory import harden

    if ordered(settings.gateway.data_dir):
        err.print("这台网关已停用 · this gateway was decommissioned; it captures nothing any more", highlight=False)
        raise typer.Exit(1)
    if missing := listeners_unusable(settings):
        raise ConfigError("agent.toml", missing)
    for shortfall in harden().shortfalls:
        logging.getLogger(__name__).warning("hygiene %s", shortfall)
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
    settings = read_config(config, check=True)
    if missing := unusable(settings):
        err.print(
            f"[red]这台机器上缺东西 · this machine lacks something[/]\n{ConfigError(str(config), missing)}",
            highlight=False,
        )
        raise typer.Exit(1)
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
    from device_drivers import catalog
    from device_drivers.errors import DeviceError

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


@commands.token_app.command("bootstrap")
def token_bootstrap(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """首次认领的一次性口令 · the one-time token that makes the first account"""

    from edge_agent.api.access_tokens import bootstrap

    async def work(folder: Path) -> str | None:
        database = await asyncio.to_thread(Database.open, folder / "agent.db")
        try:
            return await database.write(lambda c: bootstrap(c, now=utc_now()))
        finally:
            await asyncio.to_thread(database.close)

    token = asyncio.run(work(data_folder(config, data)))
    if token is None:
        err.print("已有账号，不再需要 · there is an account already; ask an administrator")
        raise typer.Exit(1)
    if as_json:
        print_json({"token": token})
    else:
        out.print(token, highlight=False)


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    config: ConfigOption = DEFAULT_CONFIG,
    erasures_unknown: Annotated[
        bool,
        typer.Option(
            help="现有文件读不出，也恢复 · go on although the files here do not tell what was erased since the backup"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """恢复备份（代理须停止） · put an archive back while the agent is stopped"""
    from edge_agent.biometrics.in_use import provider_of
    from edge_agent.restoration import restore as restore_archive
    from templates_store.anchor import FileAnchor
    from templates_store.errors import ErasuresUnknown, StoreError
    from templates_store.keys.passphrase import passphrase

    settings = read_config(config)
    folder = settings.gateway.data_dir
    try:
        keys = provider_of(settings.keys, folder)
        if keys is None:
            words = typer.prompt("口令 · passphrase", hide_input=True, err=True)
            keys = passphrase(words, ring=folder / "templates.ring")
        with Progress(console=err, transient=True) as progress:
            task = progress.add_task("恢复中 · restoring", total=None)
            report = restore_archive(
                archive,
                folder,
                tenant=settings.gateway.tenant,
                keys=keys,
                anchor=FileAnchor(folder / "templates.anchor"),
                now=utc_now,
                erasures_unknown=erasures_unknown,
                progress=lambda what, done, total: progress.update(task, completed=done, total=total),
            )
    except (StoreError, StorageError) as exc:
        err.print(f"[red]没有恢复 · not restored:[/] {exc or type(exc).__name__}", highlight=False)
        if isinstance(exc, ErasuresUnknown):
            err.print(
                "备份之后被删除的人会重新出现。请找回原文件或其密钥；确实没有，再加 --erasures-unknown"
                " · whoever was erased after the backup would come back. Bring the file or its key back; if they are"
                " lost for good, add --erasures-unknown",
                highlight=False,
            )
        raise typer.Exit(1) from None
    if as_json:
        print_json(asdict(report))
        return
    out.print(f"● {', '.join(report.members)} · {report.made_at.isoformat(timespec='seconds')}", highlight=False)
    out.print(
        f"  再次删除 · erased again: {report.erased_again}; 下次启动时执行的删除 · erasures due at the next start: "
        f"{report.ordered_again}; 仍然停用的令牌与账号 · tokens and accounts shut as before: {report.shut_again}",
        highlight=False,
    )
    if not report.erasures_known:
        err.print(
            "[yellow]备份之后删除过谁，这里没有完整记录：请与上游核对并重新删除 · there is no complete record here of"
            " who was erased after the backup: compare with what upstreams were told, and erase them again[/]",
            highlight=False,
        )


@app.command()
def decommission(
    config: ConfigOption = DEFAULT_CONFIG,
    confirm: Annotated[str, typer.Option(help="网关名 · the gateway's name")] = "",
    leave_devices: Annotated[bool, typer.Option(help="放弃连不上的设备 · give up devices that do not answer")] = False,
    as_json: Json = False,
) -> None:
    """永久停用：停止采集、清空设备、销毁密钥、签署报告 · end this gateway for good (stop the agent first)"""
    settings = read_config(config)
    from edge_agent.decommission import NotConfirmed

    name = confirm or typer.prompt("输入网关名以确认 · type the gateway's name to confirm")
    try:
        report = asyncio.run(_decommission(settings, name, leave_devices=leave_devices))
    except (NotConfirmed, NotApproved) as exc:
        err.print(str(exc), highlight=False)
        raise typer.Exit(1) from None
    print_json(report.document)
    if not report.complete:
        err.print(f"尚待清空 · still to be wiped: {', '.join(report.pending)}", highlight=False)
        raise typer.Exit(1)


class NotApproved(Exception):
    """Ending this gateway takes two people, and nobody has approved it."""


async def _decommission(settings: AgentConfig, name: str, *, leave_devices: bool) -> Report:
    """Run the agent once more, without capture, to tell recipients and wipe devices."""
    from edge_agent import decommission as ending
    from edge_agent.agent import Agent
    from edge_agent.api.approvals import END
    from edge_agent.api.two_people import approved
    from edge_agent.policy.two_people import ActKind

    if (finished := ending.reported(settings.gateway.data_dir)) is not None:
        return finished
    agent = await Agent.open(settings)
    now = utc_now()
    if (
        ActKind.DECOMMISSION in agent.site.two_people.acts
        and not ending.ordered(settings.gateway.data_dir)  # going on with it needs nobody again
        and not await agent.database.read(lambda c: approved(c, END.name, now=now))
    ):
        await agent.close()
        raise NotApproved(
            "停用需要两个人批准 · this takes two people: ask with POST /api/v1/decommission/permit (or at the console)"
            " while the agent runs, have another person approve, then come back"
        )
    working = asyncio.create_task(agent.run())
    try:
        await agent.in_force.wait()
        return await ending.decommission(agent, actor="command line", confirm_host=name, leave_devices=leave_devices)
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        await agent.close()


@app.command("identify")
def identify_command(
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="照片 · a photograph")],
    among: Annotated[Path, typer.Option(help="姓名/照片.jpg 的文件夹 · a folder of Name/photo.jpg")],
    engine: Annotated[str, typer.Option(help="sface 或 dlib")] = "sface",
    as_json: Json = False,
) -> None:
    """在桌面上试一次：照片里是谁，不保存任何模板 · bench-top: who is on a photograph; nothing is kept"""
    from edge_agent.command_line.bench_top import enrol_folder, identify_image
    from edge_agent.matching.calibration import shipped_calibration
    from edge_agent.matching.face_engine import engine as face_engine
    from edge_agent.matching.images import BadImage
    from edge_agent.matching.outcomes import Match
    from templates_store.gallery.vectors import VectorGallery

    face = face_engine(engine)
    gallery, calibration = (
        VectorGallery(face.format.dimension, metric=face.metric),
        shipped_calibration(face.format.pipeline),
    )
    console = err if as_json else out
    try:
        enrol_folder(among, engine=face, gallery=gallery, calibration=calibration, console=console)
        outcome = identify_image(image, engine=face, gallery=gallery, calibration=calibration, console=console)
    except (BadImage, OSError) as exc:
        err.print(str(exc), highlight=False)
        raise typer.Exit(1) from None
    matched = isinstance(outcome, Match)
    if as_json:
        print_json({"match": matched, **asdict(outcome)})
    raise typer.Exit(0 if matched else 1)


@app.command("enrol-folder")
def enrol_folder_command(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="姓名/照片.jpg · Name/photo.jpg")],
    engine: Annotated[str, typer.Option(help="sface 或 dlib")] = "sface",
    as_json: Json = False,
) -> None:
    """在桌面上试录入：谁会被拒、为什么，不保存任何模板 · bench-top: who would be refused and why; nothing is kept"""
    from edge_agent.command_line.bench_top import enrol_folder
    from edge_agent.matching.calibration import shipped_calibration
    from edge_agent.matching.face_engine import engine as face_engine
    from templates_store.gallery.vectors import VectorGallery

    face = face_engine(engine)
    gallery, calibration = (
        VectorGallery(face.format.dimension, metric=face.metric),
        shipped_calibration(face.format.pipeline),
    )
    console = err if as_json else out
    report = enrol_folder(folder, engine=face, gallery=gallery, calibration=calibration, console=console)
    if as_json:
        refused = [
            {"where": each.where, "code": each.code, "zh": each.why.zh, "en": each.why.en} for each in report.refused
        ]
        print_json({"enrolled": report.enrolled, "refused": refused})
    raise typer.Exit(1 if report.refused else 0)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
