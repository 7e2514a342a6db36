"""The gateway itself, from the shell: its state, people, tokens, accounts, configuration, keys, audit, backup."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape

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
from edge_agent.command_line.local_client import LocalClient

app = typer.Typer()
people_app = typer.Typer(no_args_is_help=True, help="人员 · people")
token_app = typer.Typer(no_args_is_help=True, help="令牌 · tokens")
accounts_app = typer.Typer(no_args_is_help=True, help="账号 · accounts")
config_app = typer.Typer(no_args_is_help=True, help="配置 · configuration as code")
keys_app = typer.Typer(no_args_is_help=True, help="密钥 · keys")
audit_app = typer.Typer(no_args_is_help=True, help="审计 · the audit log")


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """运行状况 · how the running agent is doing"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/status")
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if key not in {"warnings", "refused"} and value != "":
            out.print(f"[dim]{key:18}[/] {escape(str(value))}", highlight=False)
    for warning in found["warnings"]:
        out.print(f"[yellow]▲[/] {escape(warning)}", highlight=False)
    for group in found["refused"]:
        words = f"{group['upstream']} 拒收 refused {group['count']}: {group['reason']}"
        out.print(f"[yellow]▲[/] {escape(words)} → edge-agent quarantine list", highlight=False)


@people_app.command("list")
def people_list(
    search: Annotated[str, typer.Argument(help="姓名、部门或工号 · name, department or number")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """人员 · people"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/people", search=search, limit=500)["people"]
    columns = [
        ("编号 subject", "subject"), ("姓名 name", "name"), ("部门 department", "department"), ("卡 cards", "cards"),
        ("密码 PIN", "has_pin"),
    ]  # fmt: skip
    show(found, columns, as_json=as_json)


@people_app.command("import")
def people_import(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV")],
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """导入 · import a CSV: subject, name, department, user_id, card, pin, valid_from, valid_until"""
    with running(config, data) as agent, err.status("导入中 · importing"):
        report = agent.call("POST", "/api/v1/people/import", files={"file": file.read_bytes()}).json()
    if as_json:
        print_json(report)
    else:
        out.print(f"新增 added {report['added']}，更新 changed {report['changed']}", highlight=False)
        for fault in report["refused"]:
            out.print(f"[yellow]▲[/] line {fault['line']}, {fault['column']}: {escape(fault['problem'])}")
    if report["refused"]:
        raise typer.Exit(1)


@token_app.command("issue")
def token_issue(
    name: str,
    scopes: Annotated[list[str], typer.Argument(help="events:read ...")],
    days: Annotated[int, typer.Option(min=1, max=366)] = 90,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """签发机器令牌，只显示一次 · a token for a machine, shown once"""
    with running(config, data) as agent:
        answer = agent.post("/api/v1/tokens", {"name": name, "scopes": scopes, "days": days})
    if as_json:
        print_json(answer)
    else:
        out.print(answer["token"], highlight=False, soft_wrap=True)


@token_app.command("list")
def token_list(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """全部令牌 · every token"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/tokens")
    show(
        found,
        [("名称 name", "name"), ("权限 scopes", "scopes"), ("至 until", "expires_at"), ("吊销 revoked", "revoked_at")],
        as_json=as_json,
    )


@token_app.command("revoke")
def token_revoke(
    name: str, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """吊销 · revoke"""
    with running(config, data) as agent:
        agent.call("DELETE", f"/api/v1/tokens/{name}")
    if as_json:
        print_json({"token": name, "done": "revoke"})
    else:
        out.print(f"● {escape(name)}", highlight=False)


@accounts_app.command("reset")
def accounts_reset(
    name: str, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """换成一次性口令，本人登录后自己改；此后不再算在建立它的人手里 · a password to hand over, changed by the person
    at once: from then on the account is a second person also to whoever made it"""
    password = secrets.token_urlsafe(18)
    path = f"/api/v1/accounts/{quote(name, safe='')}"
    with running(config, data) as agent:
        tag = agent.call("GET", path).headers["etag"]
        agent.call("PATCH", path, json={"password": password}, headers={"If-Match": tag})
    if as_json:
        print_json({"account": name, "password": password})
    else:
        out.print(password, highlight=False, markup=False, soft_wrap=True)


@config_app.command("show")
def config_show(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """当前配置，不含口令，总是 JSON · the configuration in force, without secrets; JSON either way"""
    with running(config, data) as agent:
        print_json(agent.get("/api/v1/config"))


def _put(agent: LocalClient, file: Path, *, dry_run: bool, reason: str) -> dict[str, Any]:
    """A JSON document, or the [site] part of a TOML file."""
    try:
        if file.suffix == ".toml":
            import tomllib

            document = tomllib.loads(file.read_text("utf-8"))
            document = document.get("site", document)
        else:
            document = json.loads(file.read_text("utf-8"))
    except ValueError as exc:  # of JSON, of TOML, of UTF-8
        err.print(f"[red]{escape(str(file))}: 不能读 · cannot be read[/]: {escape(str(exc))}", highlight=False)
        raise typer.Exit(1) from None
    tag = agent.call("GET", "/api/v1/config").headers["etag"]
    answer: dict[str, Any] = agent.call(
        "PUT",
        "/api/v1/config",
        json=document,
        params={"dry_run": dry_run, "reason": reason},
        headers={"If-Match": tag},
    ).json()
    return answer


def _print_changes(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    for change in answer["changes"]:
        out.print(
            f"{change['path']}: [red]{escape(str(change['before']))}[/] → [green]{escape(str(change['after']))}[/]"
        )
    if not answer["changes"]:
        out.print("没有差别 · no difference")


FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON 或 TOML")]


@config_app.command("diff")
def config_diff(
    file: FileArgument, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """会改什么 · what a file would change"""
    with running(config, data) as agent:
        _print_changes(_put(agent, file, dry_run=True, reason=""), as_json=as_json)


@config_app.command("apply")
def config_apply(
    file: FileArgument,
    reason: Annotated[str, typer.Option(help="原因 · why")] = "command line",
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """整份应用，要么全改要么不改 · apply it all or nothing"""
    with running(config, data) as agent:
        answer = _put(agent, file, dry_run=False, reason=reason)
    _print_changes(answer, as_json=as_json)
    if not as_json:
        out.print(f"配置第 {answer['version']} 版生效 · version {answer['version']} is in force", highlight=False)


@config_app.command("history")
def config_history(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """历史版本 · versions"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/config/versions")
    columns = [("版本 version", "version"), ("时间 at", "at"), ("操作人 actor", "actor"), ("原因 reason", "reason")]
    show(found, columns, as_json=as_json)


@config_app.command("rollback")
def config_rollback(
    version: int, config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False
) -> None:
    """恢复旧版本 · make an old version the newest"""
    with running(config, data) as agent:
        tag = agent.call("GET", "/api/v1/config").headers["etag"]
        answer = agent.post(f"/api/v1/config/versions/{version}/restore", headers={"If-Match": tag})
    _print_changes(answer, as_json=as_json)


@keys_app.command("show")
def keys_show(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """密钥来自哪里、是否能解开模板 · where the keys come from and whether they open the templates"""
    with running(config, data) as agent:
        found = agent.get("/api/v1/keys")
    columns = [
        ("来源 provider", "provider"), ("封存 sealed", "sealed"), ("密钥 kek", "kek"), ("原因 reason", "reason"),
        ("提醒 warning", "warning"),
    ]  # fmt: skip
    if as_json:
        print_json(found)
    else:
        show([found], columns, as_json=False)


@keys_app.command("rotate")
def keys_rotate(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """轮换主密钥，旧的销毁 · a new key-encryption key; the old one is destroyed"""
    with running(config, data) as agent, err.status("轮换中 · rotating"):
        answer = agent.post("/api/v1/keys/rotate")
    if as_json:
        print_json(answer)
    else:
        out.print(f"● {answer['kek']}", highlight=False)


@keys_app.command("unseal")
def keys_unseal(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """用保管人的口令解封 · unseal with the keeper's passphrase"""
    words = typer.prompt("口令 · passphrase", hide_input=True, err=True)
    with running(config, data) as agent:
        answer = agent.post("/api/v1/keys/unseal", {"passphrase": words})
    if as_json:
        print_json(answer)
    else:
        out.print("● 已解封 · unsealed")


@audit_app.command("verify")
def audit_verify(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """验证审计链 · verify the chain against its anchors"""
    with running(config, data) as agent:
        verdict = agent.get("/api/v1/audit/verify")
    if as_json:
        print_json(verdict)
    elif verdict["intact"]:
        out.print(f"[green]●[/] 完整 · intact, {verdict['rows']} rows", highlight=False)
    else:
        out.print(f"[red]■[/] {escape(verdict['fault'])}", highlight=False)
    if not verdict["intact"]:
        raise typer.Exit(1)


@audit_app.command("show")
def audit_show(
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    data: FolderOption = None,
    as_json: Json = False,
) -> None:
    """最近的行 · the newest rows"""
    with running(config, data) as agent:
        rows = agent.get("/api/v1/audit", limit=limit)["rows"]
    columns = [
        ("行 row", "seq"), ("时间 at", "at"), ("操作人 actor", "actor"), ("动作 action", "action"),
        ("对象 object", "object"), ("结果 outcome", "outcome"),
    ]  # fmt: skip
    show(rows, columns, as_json=as_json)


@app.command()
def backup(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """加密备份，写后核验 · an encrypted archive, verified after writing"""
    with running(config, data) as agent, err.status("备份中 · backing up"):
        answer = agent.call("POST", "/api/v1/backup", timeout=LONG_S).json()
    if as_json:
        print_json(answer)
    else:
        out.print(f"● {answer['path']} ({answer['size_bytes']:,} B)", highlight=False)


@app.command()
def calibrate(config: ConfigOption = DEFAULT_CONFIG, data: FolderOption = None, as_json: Json = False) -> None:
    """用本站已录入的模板重新校准门限 · measure the thresholds on this site's own gallery"""
    with running(config, data) as agent, err.status("校准中 · calibrating"):
        found = agent.call("POST", "/api/v1/calibration", timeout=LONG_S).json()
    columns = [("管线 pipeline", "pipeline"), ("比对数 comparisons", "comparisons"), ("依据 on", "measured_on")]
    show(found, columns, as_json=as_json)


GROUPS = (
    ("people", people_app), ("token", token_app), ("config", config_app), ("keys", keys_app),
    ("audit", audit_app), ("accounts", accounts_app),
)  # fmt: skip
