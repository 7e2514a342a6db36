"""Devices and doors, from the shell: how they stand, what they hold, what is asked of one."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from device_drivers.options import OPTIONS
from edge_agent.command_line.asking import (
    DEFAULT_CONFIG,
    LONG_S,
    ConfigOption,
    FolderOption,
    Json,
    err,
    out,
    print_json,
    running,
    show,
)

app = typer.Typer()
doors_app = typer.Typer(no_args_is_help=True, help="门 · doors")


@app.command()
def devices(
    scan: Annotated[bool, typer.Option("--scan", help="在网络上查找 · who answers a broadcast on the network")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """设备 · devices, and terminals that wait for approval"""
    if scan:
        with running(config, data) as agent, err.status("查找中 · looking"):
            answered = agent.post("/api/v1/devices/scan")
        columns = [
            ("协议 kind", "kind"), ("地址 address", "address"), ("序列号 serial", "serial"), ("型号 model", "model"),
            ("固件 firmware", "firmware"), ("已添加为 added as", "name"),
        ]  # fmt: skip
        show(answered, columns, as_json=as_json)
        return
    with running(config, data) as agent:
        found, waiting = agent.get("/api/v1/devices"), agent.get("/api/v1/devices/pending")
    columns = [
        ("设备 device", "name"), ("协议 kind", "kind"), ("状态 state", "state"), ("地址 address", "address"),
        ("序列号 serial", "serial"), ("时钟差 clock s", "clock_offset_s"), ("说明 error", "error"),
    ]  # fmt: skip
    show(found, columns, as_json=as_json)
    if waiting and not as_json:
        out.print("\n等待批准 · waiting for approval:")
        show(
            waiting, [("序列号 serial", "serial"), ("地址 address", "address"), ("次数 times", "times")], as_json=False
        )


@app.command()
def options(
    kind: Annotated[str, typer.Argument(help="协议 · kind of device")] = "",
    as_json: Json = False,
) -> None:
    """设备的 options 可以写什么 · what `options` of a device may hold"""
    if kind and kind not in OPTIONS:
        err.print(f"没有这种协议 · no kind {escape(repr(kind))}; {', '.join(OPTIONS)}")
        raise typer.Exit(2)
    rows = [
        {"kind": each, "name": name, "allowed": o.allowed, "default": o.default, "zh": o.zh, "en": o.en}
        | {"meaning": f"{o.zh} · {o.en}"}
        for each, known in OPTIONS.items()
        if kind in ("", each)
        for name, o in known.items()
    ]
    columns = [
        ("协议 kind", "kind"), ("名称 name", "name"), ("可以写 allowed", "allowed"), ("默认 default", "default"),
        ("作用 meaning", "meaning"),
    ]  # fmt: skip
    show(rows, columns, as_json=as_json)


@app.command()
def sync(
    device: str,
    apply: Annotated[
        bool, typer.Option("--apply", help="执行，否则只预览 · carry it out instead of only asking")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """同步设备上的人员 · what would change on a device, or change it"""
    with running(config, data) as agent, err.status(f"{device}: 同步中 · comparing"):
        method = "POST" if apply else "GET"
        answer = agent.call(method, f"/api/v1/devices/{device}/sync", timeout=LONG_S).json()
    refused = answer["failed" if apply else "refused"]
    if as_json:
        print_json(answer)
    elif apply:
        out.print(f"完成 done {answer['done']}，失败 failed {len(refused)}", highlight=False)
        if answer["interrupted"]:
            out.print(f"[yellow]▲[/] 中断 interrupted: {escape(answer['interrupted'])}", highlight=False)
    else:
        words = (
            ("新增 add", "add"), ("更改 change", "change"), ("移除 remove", "remove"), ("模板 templates", "templates"),
            ("不属于本系统 foreign", "foreign"), ("卡号未知 card not known here", "cards_unknown"),
            ("时间段 time profiles", "time_profiles"), ("密码键盘 keypads", "keypads"),
        )  # fmt: skip
        for word, key in words:
            items = [f"{i['key']} ({', '.join(i['fields'])})" if isinstance(i, dict) else i for i in answer[key]]
            out.print(f"{word} {len(items)}: {escape(', '.join(map(str, items[:20])))}", highlight=False)
        if answer["tasks"] is not None:
            out.print(f"定时任务 tasks {answer['tasks']}", highlight=False)
        if not answer["kept"]:
            out.print("[dim]options.sync 未开启，不会更改 · not switched on for this device: nothing is changed[/]")
    if not as_json:
        for item in refused:
            out.print(f"[yellow]▲[/] {escape(item['key'])}: {escape(item['reason'])}", highlight=False)
    if apply and (refused or answer["interrupted"]):
        raise typer.Exit(1)


@app.command("reader-key")
def reader_key(
    device: str,
    reader: Annotated[int, typer.Argument(min=0, max=126, help="OSDP 地址 · address of the reader")],
    seconds: Annotated[float, typer.Option(min=1, max=600, help="安装模式多久 · how long install mode lasts")] = 60,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """给读卡器换上自己的密钥 · give an OSDP reader in its install mode a key of its own"""
    with running(config, data) as agent, err.status("安装模式 · install mode"):
        path = f"/api/v1/devices/{device}/readers/{reader}/key"
        agent.call("POST", path, json={"seconds": seconds}, timeout=seconds + 30)
    if as_json:
        print_json({"device": device, "reader": reader, "state": "done"})
    else:
        out.print(f"● {device}/{reader} 已有新密钥 has a new key", highlight=False)


@app.command("clear-log")
def clear_log(
    device: str,
    confirm: Annotated[str, typer.Option(help="再输一遍设备名 · the device's name once more")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """清空终端里的打卡记录，须全部已送达上游 · clear a terminal's log, once all of it is upstream"""
    name = confirm or typer.prompt(f"输入 {device} 以确认 · type {device} to confirm", err=True)
    with running(config, data) as agent, err.status(f"{device}: 读取并核对 · reading and checking"):
        answer = agent.post(f"/api/v1/devices/{device}/log/clear", {"confirm": name}, timeout=LONG_S)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{device}: {answer['state']} {escape(answer['reason'])}", highlight=False)
    if answer["state"] != "done":
        raise typer.Exit(1)


@doors_app.command("list")
def doors_list(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """全部门 · every door"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/doors")
    show(
        found,
        [("门 door", "name"), ("设备 device", "device"), ("在线 online", "online"), ("模式 mode", "mode")],
        as_json=as_json,
    )


@doors_app.command("open")
def doors_open(
    name: str, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """开门一次 · open once; recorded in the audit"""
    with running(config, data) as agent:
        answer = agent.post(f"/api/v1/doors/{name}/open")
    if as_json:
        print_json(answer)
    else:
        out.print(f"{name}: {answer['state']} {answer['reason']}", highlight=False)
    if answer["state"] != "done":
        raise typer.Exit(1)


GROUPS = (("doors", doors_app),)
