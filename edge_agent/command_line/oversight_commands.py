"""What waits for a person: upstreams and what they refused, incidents, acts that need a second person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from edge_agent.command_line.asking import (
    DEFAULT_CONFIG,
    ConfigOption,
    FolderOption,
    Json,
    err,
    out,
    print_json,
    running,
    show,
)
from edge_agent.command_line.local_client import LocalClient

upstreams_app = typer.Typer(no_args_is_help=True, help="上游 · recipients of events")
quarantine_app = typer.Typer(no_args_is_help=True, help="隔离区 · what an upstream refused, and why")
incidents_app = typer.Typer(no_args_is_help=True, help="安全事件 · incidents")
PAGE = 500
Upstream = Annotated[str, typer.Argument(help="上游名 · the upstream's name")]
Sequences = Annotated[list[int] | None, typer.Argument(help="事件序号，不写就是全部 · which events; all if left out")]


@upstreams_app.command("list")
def upstreams_list(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """每个上游的账目和拿到的字段 · each recipient's books and fields"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/upstreams")
    columns = [
        ("上游 upstream", "name"), ("待发 pending", "pending"), ("已送达 delivered", "delivered"),
        ("隔离 quarantined", "quarantined"), ("吊销 revoked", "revoked"), ("字段 fields", "fields"),
    ]  # fmt: skip
    show(found, columns, as_json=as_json)


def _order(name: str, action: str, config: Path, data: Path | None, *, as_json: bool) -> None:
    with running(config, data) as agent:
        agent.post(f"/api/v1/upstreams/{name}/{action}")
    if as_json:
        print_json({"upstream": name, "done": action})
    else:
        out.print(f"● {escape(name)}: {action}", highlight=False)


@upstreams_app.command("revoke")
def upstreams_revoke(
    name: Upstream, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """立即停发 · not one byte more goes there"""
    _order(name, "revoke", config, data, as_json=as_json)


@upstreams_app.command("reinstate")
def upstreams_reinstate(
    name: Upstream, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """恢复，从现在起的事件 · take a revocation back; it is owed what comes from now on"""
    _order(name, "reinstate", config, data, as_json=as_json)


def refused(agent: LocalClient, upstream: str | None = None) -> list[dict[str, Any]]:
    """Everything in quarantine, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["event"]["sequence"] if found else 0
        page = agent.get("/api/v1/quarantine", upstream=upstream, after=after, limit=PAGE)
        found += page
        if len(page) < PAGE:
            return found


@quarantine_app.command("list")
def quarantine_list(
    upstream: Annotated[str | None, typer.Option(help="只看一个上游 · of one upstream")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """被拒收的事件和原因 · refused events and why"""
    with running(config, data) as agent:
        found = refused(agent, upstream)
    if as_json:
        print_json(found)
        return
    rows = [
        {
            "upstream": item["upstream"],
            "sequence": item["event"]["sequence"],
            "type": item["event"]["type"],
            "at": item["at"],
            "reason": item["reason"],
        }
        for item in found
    ]
    columns = [
        ("上游 upstream", "upstream"), ("序号 sequence", "sequence"), ("类型 type", "type"), ("时间 at", "at"),
        ("原因 reason", "reason"),
    ]  # fmt: skip
    show(rows, columns, as_json=False)


@quarantine_app.command("show")
def quarantine_show(
    upstream: Upstream,
    sequence: Annotated[int, typer.Argument(help="序号 · sequence")],
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """一条：上游的原话和事件 · one: upstream's own words and the event"""
    with running(config, data) as agent:
        page = agent.get("/api/v1/quarantine", upstream=upstream, after=sequence - 1, limit=1)
    item = next((each for each in page if each["event"]["sequence"] == sequence), None)
    if item is None:
        err.print(f"没有这一条 · {escape(upstream)} refused no event {sequence}", highlight=False)
        raise typer.Exit(1)
    if as_json:
        print_json(item)
        return
    out.print(f"[yellow]▲[/] {escape(item['reason'])}", highlight=False)
    if item["reply"]:
        out.print(escape(item["reply"]), highlight=False)
    print_json(item["event"])


def _judge(
    action: str, upstream: str, sequences: list[int] | None, config: Path, data: Path | None, *, as_json: bool
) -> None:
    body = {"upstream": upstream, "action": action, "sequences": sequences or None}
    with running(config, data) as agent:
        answer = agent.post("/api/v1/quarantine", body)
    if as_json:
        print_json(answer)
    else:
        out.print(f"● {action}: {answer['count']}", highlight=False)
    if sequences and answer["count"] < len(set(sequences)):
        raise typer.Exit(1)


@quarantine_app.command("release")
def quarantine_release(
    upstream: Upstream,
    sequences: Sequences = None,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """改好后重发 · send again, after correcting the upstream or its fields"""
    _judge("release", upstream, sequences, config, data, as_json=as_json)


@quarantine_app.command("discard")
def quarantine_discard(
    upstream: Upstream,
    sequences: Annotated[list[int], typer.Argument(help="事件序号 · which events")],
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """放弃：这个上游永远收不到它们 · give up: this upstream will never get them"""
    _judge("discard", upstream, sequences, config, data, as_json=as_json)


@incidents_app.command("list")
def incidents_list(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """全部安全事件 · every incident"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/incidents")
    columns = [
        ("编号 id", "id"), ("类别 kind", "kind"), ("发现 opened", "opened_at"), ("由 by", "opened_by"),
        ("冻结 frozen", "frozen"), ("结束 closed", "closed_at"), ("说明 note", "note"),
    ]  # fmt: skip
    show(found, columns, as_json=as_json)


@incidents_app.command("open")
def incidents_open(
    note: Annotated[str, typer.Argument(help="发生了什么 · what happened")],
    kind: Annotated[str, typer.Option(help="tamper intrusion audit loss disclosure other")] = "other",
    freeze: Annotated[bool, typer.Option("--freeze", help="立即停止采集和比对 · stop capture and matching")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """登记一起安全事件 · open an incident"""
    with running(config, data) as agent:
        answer = agent.post("/api/v1/incidents", {"kind": kind, "note": note, "freeze": freeze})
    if as_json:
        print_json(answer)
    else:
        out.print(f"● {answer['id']}", highlight=False)


@incidents_app.command("report")
def incidents_report(
    identity: Annotated[str, typer.Argument(help="编号 · the incident's number")],
    notice: Annotated[bool, typer.Option("--notice", help="告知书，代替报告 · the notice to people instead")] = False,
    language: Annotated[str, typer.Option(help="zh 或 en")] = "zh",
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """给主管部门的报告草稿 · the draft report to the authority, as Markdown"""
    document = "notice" if notice else "report"
    with running(config, data) as agent:
        text = agent.call("GET", f"/api/v1/incidents/{identity}/{document}", params={"lang": language}).text
    if as_json:
        print_json({"incident": identity, "document": document, "text": text})
    else:
        typer.echo(text)


GROUPS = (("upstreams", upstreams_app), ("quarantine", quarantine_app), ("incidents", incidents_app))
