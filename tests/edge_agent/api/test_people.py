from __future__ import annotations

from typing import Any

import httpx

from tests.edge_agent.api.client import Site


async def import_csv(client: httpx.AsyncClient, raw: bytes) -> httpx.Response:
    return await client.post("/api/v1/people/import", files={"file": ("people.csv", raw, "text/csv")})


NEVER = ({"valid_until": "9999-12-31"}, {"valid_from": "0001-01-01"}, {"valid_from": "0001-01-01T00:00:00+08:00"})


async def change(client: httpx.AsyncClient, subject: str, body: dict[str, Any]) -> httpx.Response:
    path = f"/api/v1/people/{subject}"
    return await client.patch(path, json=body, headers={"If-Match": (await client.get(path)).headers["etag"]})


async def test_a_person_gets_card_and_pin_and_neither_is_ever_shown(site: Site) -> None:
    client = await site.administrator()
    body = {"name": "陈雨桐", "user_id": "10482", "card": "0012345678", "pin": "738291"}
    made = await client.post("/api/v1/people", json=body)
    assert made.status_code == 201, made.text
    person = made.json()
    assert person["cards"] == ["5678"]
    assert person["has_pin"] is True
    read = (await client.get(f"/api/v1/people/{person['subject']}")).text
    assert "12345678" not in read
    assert "738291" not in read
    dump = await site.governance.database.read(lambda c: "\n".join(c.iterdump()))
    assert "0012345678" not in dump
    assert "738291" not in dump


async def test_a_card_belongs_to_one_person(site: Site) -> None:
    client = await site.administrator()
    await client.post("/api/v1/people", json={"name": "A", "card": "77"})
    second = await client.post("/api/v1/people", json={"name": "B", "card": "0077"})
    assert second.status_code == 409
    assert (await client.get("/api/v1/people")).json()["people"][0]["name"] == "A"
    assert len((await client.get("/api/v1/people")).json()["people"]) == 1


async def test_a_correction_changes_what_it_names_and_nothing_else(site: Site) -> None:
    client = await site.administrator()
    subject = (await client.post("/api/v1/people", json={"name": "A", "department": "QA"})).json()["subject"]
    changed = await change(client, subject, {"name": "B"})
    assert (changed.json()["name"], changed.json()["department"]) == ("B", "QA")
    nobody = await client.patch("/api/v1/people/nobody", json={"name": "B"}, headers={"If-Match": '"1"'})
    assert nobody.status_code == 404


async def test_a_day_of_validity_is_a_whole_day_on_the_sites_clock(site: Site) -> None:
    client = await site.administrator()
    zone = site.governance.configuration.site.model_copy(update={"timezone": "Asia/Shanghai"})
    await site.governance.configuration.apply(zone, actor="t", reason="t", now=site.clock())
    body = {"name": "A", "valid_from": "2026-12-01", "valid_until": "2027-11-30T18:00:00+08:00"}
    person = (await client.post("/api/v1/people", json=body)).json()
    assert (person["valid_from"], person["valid_until"]) == ("2026-11-30T16:00:00Z", "2027-11-30T10:00:00Z")
    changed = (await change(client, person["subject"], {"valid_until": "2027-11-30"})).json()
    assert (changed["valid_from"], changed["valid_until"]) == ("2026-11-30T16:00:00Z", "2027-11-30T16:00:00Z")
    changed = (await change(client, person["subject"], {"valid_from": None, "name": "B"})).json()
    assert (changed["valid_from"], changed["valid_until"]) == (None, "2027-11-30T16:00:00Z")
    for wrong in ({"valid_from": "2028-01-01"}, {"valid_from": "2026-12-01T08:00:00"}, *NEVER):
        refused = await change(client, person["subject"], wrong)
        assert refused.status_code == 422, wrong
        assert "valid_" in refused.text
    assert (await client.get(f"/api/v1/people/{person['subject']}")).json() == changed  # nothing half applied


async def test_an_import_without_departments_keeps_them_and_an_empty_one_takes_it_away(site: Site) -> None:
    client = await site.administrator()
    await import_csv(client, b"name,department,user_id\nA,QA,1\nB,QA,2\n")
    await import_csv(client, b"name,user_id\nA,1\n")
    await import_csv(client, b"name,department,user_id\nB,,2\n")
    people = (await client.get("/api/v1/people")).json()["people"]
    assert {person["name"]: person["department"] for person in people} == {"A": "QA", "B": ""}


async def test_two_people_under_one_number_of_a_file_do_not_become_one(site: Site) -> None:
    client = await site.administrator()
    rows = ["name,user_id,card", "A,1,11", "A,1,12", "", *(f"P{n},{n}," for n in range(2, 300)), "B,1,13"]
    report = (await import_csv(client, "\n".join(rows).encode())).json()
    assert report["refused"] == [
        {
            "line": 303,
            "column": "user_id",
            "problem": "1 stands under another name further up; each person has their own",
        }
    ]
    [person] = (await client.get("/api/v1/people", params={"search": "A"})).json()["people"]
    assert (person["name"], person["cards"]) == ("A", ["11", "12"])


async def test_a_column_that_stands_there_twice_is_refused(site: Site) -> None:
    client = await site.administrator()
    refused = await import_csv(client, b"name,card,Card\nA,1,2\n")
    assert (refused.status_code, "names card twice" in refused.json()["detail"]) == (422, True)
    assert (await client.get("/api/v1/people")).json()["people"] == []


async def test_an_import_takes_validity_and_a_column_left_out_keeps_what_is_known(site: Site) -> None:
    client = await site.administrator()
    raw = "name,user_id,valid_from,valid_until\nA,1,2026-12-01,2026-12-31\nB,2,soon,\nC,3,2026-12-02,2026-12-01\n"
    report = (await import_csv(client, raw.encode())).json()
    assert [(fault["line"], fault["column"]) for fault in report["refused"]] == [(3, "valid_from"), (4, "valid_until")]
    assert (await import_csv(client, b"name,user_id\nA2,1\n")).json()["changed"] == 1
    [person] = (await client.get("/api/v1/people")).json()["people"]
    assert (person["name"], person["valid_from"], person["valid_until"]) == (
        "A2",
        "2026-12-01T00:00:00Z",
        "2027-01-01T00:00:00Z",
    )


async def test_an_import_takes_good_rows_and_names_bad_ones(site: Site) -> None:
    client = await site.administrator()
    raw = "name,user_id,card,pin\n陈雨桐,1,111,1234\n,2,,\n王建国,3,x!,\n赵敏,4,,12\n李思远,5,555,\n".encode("gb18030")
    report = (await import_csv(client, raw)).json()
    assert report["added"] == 2
    assert [(fault["line"], fault["column"]) for fault in report["refused"]] == [(3, "name"), (4, "card"), (5, "pin")]
    names = {person["name"] for person in (await client.get("/api/v1/people")).json()["people"]}
    assert names == {"陈雨桐", "李思远"}


async def test_an_import_without_a_heading_is_refused_whole(site: Site) -> None:
    client = await site.administrator()
    answer = await import_csv(client, b"1,2,3\n")
    assert answer.status_code == 422
    assert "name must be among them" in answer.json()["detail"]


async def test_reading_people_is_audited_with_the_person_erasable(site: Site) -> None:
    client = await site.administrator()
    subject = (await client.post("/api/v1/people", json={"name": "陈雨桐"})).json()["subject"]
    await client.get(f"/api/v1/people/{subject}")
    rows = (await client.get("/api/v1/audit")).json()["rows"]
    assert [row["action"] for row in rows[:2]] == ["person.read", "person.add"]
    await site.governance.database.write(lambda c: site.governance.audit.erase_subject(c, subject))
    assert "陈雨桐" not in (await client.get("/api/v1/audit")).text
    assert (await client.get("/api/v1/audit/verify")).json()["intact"] is True
