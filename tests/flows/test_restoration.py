"""A restore brings back what was lost and nobody who was erased, left, or was shut out since the backup."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_agent.__main__ import app
from edge_agent.agent import Agent
from edge_agent.api import access_tokens, accounts
from edge_agent.config import parse
from edge_agent.policy.requests import Verb
from edge_agent.policy.roles import Role, Scope
from edge_agent.restoration import Restored, restore
from templates_store.anchor import FileAnchor
from templates_store.errors import ErasuresUnknown
from templates_store.keys.keyring import key_file
from templates_store.records import ConsentState
from templates_store.template import Modality, Purpose, SubjectId
from tests.flows.site import Clock, Site, Terminal, site
from tests.root_logger import as_it_was

ANN, BOB = SubjectId("ann"), SubjectId("bob")


async def people(s: Site) -> Path:
    """Two, enrolled, and the archive of that night."""
    await s.add("ann", card="1111", number="42", pin="4711")
    await s.add("bob", card="2222", number="43")
    s.enrol_face("ann", 7)
    s.enrol_face("bob", 8)
    archive = s.database.path.with_name("gateway.backup")
    s.store.backup(archive, others={"agent.db": s.database.path})
    return archive


def bring_back(folder: Path, *, erasures_unknown: bool = False) -> Restored:
    return restore(
        folder / "gateway.backup",
        folder,
        tenant="t1",
        keys=key_file(folder / "kek"),
        anchor=FileAnchor(folder / "anchor"),
        now=Clock().now,
        erasures_unknown=erasures_unknown,
    )


async def test_who_left_after_the_backup_stays_away(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await people(s)
        await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="left")
        await s.erasure.anonymise()  # the order does not name her any more
    report = bring_back(tmp_path)
    assert (report.erased_again, report.ordered_again, report.erasures_known) == (1, 1, True)
    async with site(tmp_path) as s:
        await s.card("1111")
        assert not (await s.passage()).granted
        assert await s.erasure.resume() == 1
        assert await s.credentials.person(ANN) is None
        assert {c.subject_id for c in s.galleries.consents()} == {"bob"}
        await s.card("2222")
        assert (await s.passage()).granted
        terminals = [Terminal("zk-1"), Terminal("zk-2")]
        s.terminals |= {terminal.config.name: terminal for terminal in terminals}
        assert await s.erasure.retry() == 2
        places = {p.name: p.outcome.value for receipt in s.store.receipts(ANN) for p in receipt.locations}
        assert (places["users@zk-1"], places["users@zk-2"], places["backups"]) == ("gone", "gone", "pending")


async def test_a_withdrawal_that_waited_for_the_key_still_waits_after_a_restore(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await people(s)
    async with site(tmp_path, unsealed=False) as s:
        await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FACE)
    assert bring_back(tmp_path).ordered_again == 1
    async with site(tmp_path) as s:
        assert await s.erasure.resume() == 1
        assert [c.state for c in s.store.consents(ANN)] == [ConsentState.WITHDRAWN]
        assert len(s.store.templates_of(BOB, purpose=Purpose.ACCESS)) == 1
        assert {c.subject_id for c in s.galleries.consents()} == {"bob"}


async def test_what_was_done_before_the_backup_is_not_ordered_again(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="left")
        s.clock.move(hours=1)
        await s.add("ann", card="3333")  # hired again
        await people(s)
    assert bring_back(tmp_path).ordered_again == 0
    async with site(tmp_path) as s:
        assert await s.erasure.resume() == 0
        await s.card("3333")
        assert (await s.passage()).granted


@pytest.mark.parametrize("damaged", ["agent.db", "templates.db", "anchor", "kek"])
async def test_files_that_do_not_tell_stop_the_restore_unless_they_are_given_up(tmp_path: Path, damaged: str) -> None:
    async with site(tmp_path) as s:
        await people(s)
        s.store.backup(tmp_path / "gateway.backup", others={"agent.db": s.database.path})
        old = (tmp_path / "templates.db").read_bytes()
        await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
    match damaged:
        case "agent.db" | "templates.db":
            (tmp_path / damaged).write_bytes(b"lost" * 2048)
        case "anchor":
            (tmp_path / "templates.db").write_bytes(old)
        case "kek":  # the file here was made under another key
            for name in ("templates.db", "anchor"):
                (tmp_path / name).unlink()
            async with site(tmp_path) as s:
                s.store.rewrap(key_file(tmp_path / "other"))
    with pytest.raises(ErasuresUnknown, match="does not tell"):
        bring_back(tmp_path)
    assert list(tmp_path.glob("*.restoring*")) == []
    assert not bring_back(tmp_path, erasures_unknown=True).erasures_known
    async with site(tmp_path) as s:
        assert s.galleries.count() >= 1


async def test_a_new_machine_says_that_it_cannot_know(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await people(s)
    for name in ("agent.db", "templates.db", "anchor"):
        (tmp_path / name).unlink()
    report = bring_back(tmp_path)
    assert (report.erasures_known, report.members) == (False, ("templates.db", "agent.db"))


async def test_revoked_tokens_and_shut_accounts_stay_so(tmp_path: Path) -> None:
    def open_accounts(connection: sqlite3.Connection) -> None:
        for name, role in (("root", Role.ADMIN), ("li", Role.OPERATOR)):
            accounts.add(connection, name, role=role, password_hash=None, now=Clock().now())
        for name in ("kept", "lost"):
            access_tokens.issue(
                connection, name, scopes=[Scope.BACKUP], lifetime=access_tokens.MAX_LIFETIME, created_by="root",
                now=Clock().now(),
            )  # fmt: skip

    async with site(tmp_path) as s:
        await s.database.write(open_accounts)
        await people(s)
        await s.database.write(lambda c: access_tokens.revoke(c, "lost", now=s.clock.now()))
        await s.database.write(lambda c: c.execute("UPDATE accounts SET disabled = 1"))
    assert bring_back(tmp_path).shut_again == 2
    async with site(tmp_path) as s:
        revoked = await s.database.read(lambda c: [t.name for t in access_tokens.listing(c) if t.revoked_at])
        shut = await s.database.read(lambda c: c.execute("SELECT name FROM accounts WHERE disabled").fetchall())
        assert revoked == ["lost"]
        assert shut == [("li",)]  # somebody has to be able to sign in


async def test_the_command_says_what_was_erased_again_and_refuses_what_cannot_be_known(tmp_path: Path) -> None:
    data = tmp_path / "data"
    written = f'[gateway]\nname = "gw"\ntenant = "t1"\ndata_dir = "{data}"\nballast_mb = 1\n'
    config = tmp_path / "agent.toml"
    config.write_text(written)
    document = {"gateway": {"name": "gw", "tenant": "t1", "data_dir": str(data), "ballast_mb": 1}}
    agent = await Agent.open(parse(document, source="test"))
    archive = await agent.make_backup()
    await agent.erasure.erase(ANN, Verb.DELETE, actor="ann", reason="")
    await agent.close()
    with as_it_was():  # the command sets up its own
        told = CliRunner().invoke(app, ["restore", str(archive), "--config", str(config), "--json"])
        assert told.exit_code == 0
        report = json.loads(told.stdout)
        assert (report["erased_again"], report["ordered_again"], report["erasures_known"]) == (1, 1, True)
        (data / "templates.db").write_bytes(b"lost" * 2048)
        told = CliRunner().invoke(app, ["restore", str(archive), "--config", str(config)])
        assert told.exit_code == 1
        assert "--erasures-unknown" in told.output
        told = CliRunner().invoke(app, ["restore", str(archive), "--config", str(config), "--erasures-unknown"])
        assert told.exit_code == 0
        assert "erased again: 0" in told.output
        assert "no complete record" in told.output
