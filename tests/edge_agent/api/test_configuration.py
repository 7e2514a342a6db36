from __future__ import annotations

from typing import Any

import httpx
import pytest

from edge_agent.configuration import Configuration
from tests.edge_agent.api.client import Site

DEVICE = {"name": "lobby", "kind": "zkteco", "address": "192.0.2.7", "password": "4711"}


async def read(client: httpx.AsyncClient) -> tuple[dict[str, Any], str]:
    answer = await client.get("/api/v1/config")
    return answer.json(), answer.headers["etag"]


async def put(client: httpx.AsyncClient, document: Any, tag: str, **query: str) -> httpx.Response:
    return await client.put("/api/v1/config", json=document, params=query, headers={"If-Match": tag})


async def test_a_document_goes_in_whole_and_comes_back_without_secrets(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    document["devices"] = [DEVICE]
    applied = await put(client, document, tag, reason="new lobby")
    assert applied.status_code == 200, applied.text
    document, tag = await read(client)
    assert tag == '"2"'
    assert document["devices"][0]["name"] == "lobby"
    assert "4711" not in str(document)
    assert site.governance.configuration.site.devices[0].password.get_secret_value() == "4711"


async def test_a_secret_left_out_stays_and_its_change_shows_as_changed_only(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    document["devices"] = [DEVICE]
    await put(client, document, tag)
    document, tag = await read(client)
    document["site"] = "HQ"
    await put(client, document, tag)
    assert site.governance.configuration.site.devices[0].password.get_secret_value() == "4711"
    document, tag = await read(client)
    document["devices"][0]["password"] = "1234"
    changes = (await put(client, document, tag, dry_run="true")).json()["changes"]
    assert changes == [{"path": "devices.lobby.password", "before": "(secret)", "after": "(changed)"}]


async def test_secrets_rest_sealed_and_survive_a_restart(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    document["devices"] = [{**DEVICE, "password": "4083726451"}]
    await put(client, document, tag)
    dump = await site.governance.database.read(lambda c: "\n".join(c.iterdump()))
    assert "4083726451" not in dump
    again = Configuration(site.governance.database, key=b"c" * 32)
    await again.load(site.governance.configuration.site, now=site.clock())
    assert again.site.devices[0].password.get_secret_value() == "4083726451"


async def test_a_stored_version_with_an_option_that_is_none_any_more_starts_and_a_new_one_is_refused(
    site: Site,
) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    document["devices"] = [{**DEVICE, "options": {"keepalive_s": 5}}]
    assert (await put(client, document, tag)).status_code == 200
    change = "UPDATE config_versions SET document = replace(document, 'keepalive_s', 'keep_alive')"
    await site.governance.database.write(lambda c: c.execute(change).rowcount)
    again = Configuration(site.governance.database, key=b"c" * 32)
    await again.load(site.governance.configuration.site, now=site.clock())
    assert again.site.devices[0].options == {"keep_alive": 5}
    document["devices"][0]["options"] = again.site.devices[0].options
    answer = await put(client, document, (await read(client))[1])
    assert answer.status_code == 422
    assert "keep_alive is no option of zkteco" in answer.text
    site.governance.configuration.version = again.version  # as after the start
    document["devices"].append({**DEVICE, "name": "other", "serial": "S9"})
    document["modalities"] = {"face": {"enabled": False}}
    assert (await put(client, document, (await read(client))[1])).status_code == 200  # nothing else waits for it
    document["devices"][1]["options"] = {"keep_alive": 5, "reply": 1}
    answer = await put(client, document, (await read(client))[1])
    assert (answer.status_code, "reply is no option" in answer.text) == (422, True)


async def test_a_dry_run_says_what_would_change_and_changes_nothing(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    document["devices"] = [DEVICE]
    document["timezone"] = "Asia/Shanghai"
    answer = (await put(client, document, tag, dry_run="true")).json()
    assert {change["path"] for change in answer["changes"]} >= {"timezone", "devices.lobby.address"} or {
        change["path"] for change in answer["changes"]
    } >= {"timezone", "devices"}
    assert (await read(client))[1] == tag


async def test_a_change_on_an_old_version_is_refused_with_the_newer_one(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    await put(client, {**document, "site": "one"}, tag)
    late = await put(client, {**document, "site": "two"}, tag)
    assert late.status_code == 412
    assert late.headers["etag"] == '"2"'
    assert (await read(client))[0]["site"] == "one"


async def test_a_change_without_if_match_is_refused(site: Site) -> None:
    client = await site.administrator()
    assert (await client.put("/api/v1/config", json={})).status_code == 428


async def test_an_invalid_document_names_each_field_and_applies_nothing(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    answer = await put(client, {**document, "timezone": "Mars", "devices": [{**DEVICE, "kind": "x"}]}, tag)
    assert answer.status_code == 422
    assert {fault["field"] for fault in answer.json()["errors"]} == {"timezone", "devices[0].kind"}
    assert (await read(client))[1] == tag


async def test_an_old_version_can_be_put_back(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    await put(client, {**document, "site": "one"}, tag, reason="try")
    answer = await client.post("/api/v1/config/versions/1/restore", headers={"If-Match": '"2"'})
    assert answer.json()["version"] == 3
    assert (await read(client))[0] == document
    reasons = [v["reason"] for v in (await client.get("/api/v1/config/versions")).json()]
    assert reasons == ["back to version 1", "try", "first start"]
    assert (await client.get("/api/v1/config/versions/99")).status_code == 404


async def test_a_change_leaves_an_audit_row_and_reading_the_audit_another(site: Site) -> None:
    client = await site.administrator()
    document, tag = await read(client)
    await put(client, {**document, "site": "one"}, tag)
    await client.get("/api/v1/audit")
    actions = [row["action"] for row in (await client.get("/api/v1/audit")).json()["rows"]]
    assert actions == ["audit.read", "config.apply", "gateway.claim"]
    assert (await client.get("/api/v1/audit/verify")).json()["intact"] is True


@pytest.mark.parametrize("tag", ['"x"', "*", '"999999999999999999999"'])
async def test_a_strange_etag_is_a_clear_refusal(site: Site, tag: str) -> None:
    client = await site.administrator()
    assert (await put(client, {}, tag)).status_code == 412


WEBHOOK = {
    "name": "hr",
    "url": "https://hr.example/in",
    "username": "gw",
    "password": "pw-of-hr",
    "secret": "hmac-of-hr",
}
PROVIDER = {"issuer": "https://id.example", "client_id": "x", "secret": "of-the-client", "roles": {"a": "admin"}}
PINNED = {"name": "lobby", "kind": "zkteco", "address": "192.0.2.7", "serial": "S1", "password": "4711"}


@pytest.mark.parametrize(
    ("section", "stored", "change", "again"),
    [
        ("upstreams", WEBHOOK, {"url": "https://other.example/in"}, ["password", "secret"]),
        ("upstreams", WEBHOOK, {"kind": "nats", "url": "nats://hr.example"}, ["password", "secret"]),
        ("upstreams", WEBHOOK, {"batch": 7}, []),
        ("sign_in", PROVIDER, {"issuer": "https://other.example"}, ["secret"]),
        ("sign_in", PROVIDER, {"label": "Company"}, []),
        ("devices", DEVICE, {"address": "192.0.2.66"}, ["password"]),
        ("devices", DEVICE, {"kind": "c3"}, ["password"]),
        ("devices", PINNED, {"address": "192.0.2.66"}, []),  # found again by its serial number
        ("devices", PINNED, {"address": "192.0.2.66", "serial": "S2"}, ["password"]),
    ],
)
async def test_a_secret_left_out_goes_nowhere_else(
    site: Site, section: str, stored: dict[str, Any], change: dict[str, Any], again: list[str]
) -> None:
    client = await site.administrator()

    async def put_part(item: dict[str, Any]) -> httpx.Response:
        tag = {"If-Match": (await client.get(f"/api/v1/config/{section}")).headers["etag"]}
        body = {"oidc": item} if section == "sign_in" else [item]
        return await client.put(f"/api/v1/config/{section}", json=body, headers=tag)

    assert (await put_part(stored)).status_code == 200
    shown = {key: value for key, value in stored.items() if key not in {"password", "secret"}}
    answer = await put_part(shown | change)
    place = "sign_in.oidc" if section == "sign_in" else f"{section}.{stored['name']}"
    if not again:
        assert answer.status_code == 200, answer.text
        return
    assert answer.status_code == 422, answer.text
    assert [fault["field"] for fault in answer.json()["errors"]] == [f"{place}.{field}" for field in again]
    assert "请重新填写" in answer.json()["detail"]
    assert (await put_part(shown | change | dict.fromkeys(again, "815"))).status_code == 200
    assert (await put_part(stored)).status_code == 200
    assert (await put_part(shown | change | dict.fromkeys(again, ""))).status_code == 200  # none is needed there


async def test_the_key_of_a_readers_secure_channel_stays_when_the_bus_moves(site: Site) -> None:
    client = await site.administrator()
    bus = {"name": "bus", "kind": "osdp", "address": "/dev/ttyUSB0", "options": {"pds": [{"address": 1}]}}
    keyed = bus | {"options": {"pds": [{"address": 1, "key": "ab" * 16}]}}
    document, tag = await read(client)
    assert (await put(client, document | {"devices": [keyed]}, tag)).status_code == 200
    document, tag = await read(client)
    moved = [bus | {"address": "/dev/ttyUSB1"}]
    assert (await put(client, document | {"devices": moved}, tag)).status_code == 200
    assert site.governance.configuration.site.devices[0].options["pds"][0]["key"] == "ab" * 16
