from __future__ import annotations

from edge_agent.policy.roles import Role
from tests.edge_agent.api.whole import Whole

WHERE = "/api/v1/people/p1001/access"


async def test_rights_are_replaced_on_the_tag_that_was_read(whole: Whole) -> None:
    async with whole.client(Role.OPERATOR) as client:
        read = await client.get(WHERE)
        assert read.json()["groups"] == []
        changed = await client.put(
            WHERE, json={"groups": ["staff"], "enabled": False}, headers={"If-Match": read.headers["etag"]}
        )
        assert changed.status_code == 200
        again = await client.get(WHERE)
        assert (again.json()["groups"], again.json()["enabled"]) == (["staff"], False)
        assert again.headers["etag"] == changed.headers["etag"] != read.headers["etag"]


async def test_the_second_of_two_editors_is_told_and_nothing_is_undone(whole: Whole) -> None:
    async with whole.client(Role.OPERATOR) as client:
        tag = (await client.get(WHERE)).headers["etag"]
        assert (await client.put(WHERE, json={"groups": ["staff"]}, headers={"If-Match": tag})).status_code == 200
        late = await client.put(WHERE, json={"groups": []}, headers={"If-Match": tag})
        assert late.status_code == 412
        assert late.headers["etag"] == (await client.get(WHERE)).headers["etag"]
        assert (await client.put(WHERE, json={"groups": []})).status_code == 428
        assert (await client.get(WHERE)).json()["groups"] == ["staff"]


async def test_a_group_that_is_not_configured_is_named_with_those_that_are(whole: Whole) -> None:
    async with whole.client(Role.OPERATOR) as client:
        tag = (await client.get(WHERE)).headers["etag"]
        answer = await client.put(WHERE, json={"groups": ["vault"]}, headers={"If-Match": tag})
        assert answer.status_code == 422
        assert answer.json()["detail"] == "groups: there is no 'vault'; there are staff"
        assert (await client.get("/api/v1/people/nobody/access")).status_code == 404
