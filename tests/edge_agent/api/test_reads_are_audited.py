"""Whoever reads personal data or the audit leaves a row; what is only about machines leaves none."""

from __future__ import annotations

from edge_agent.policy.roles import ROLES, Role, Scope
from tests.edge_agent.api.whole import PERSON, Whole

PERSONAL = {Scope.PEOPLE_READ, Scope.EVENTS_READ, Scope.PRIVACY_READ, Scope.PRIVACY_WRITE, Scope.EXPORT,
            Scope.AUDIT_READ}  # fmt: skip
ABOUT_NOBODY = {"/api/v1/incidents", "/api/v1/incidents/{identity}"}


async def test_every_read_of_personal_data_is_audited(whole: Whole) -> None:
    incident = await whole.agent.incidents.open("loss", actor="t")  # type: ignore[arg-type]

    async def rows() -> int:
        found: int = await whole.agent.database.read(lambda c: c.execute("SELECT count(*) FROM audit").fetchone()[0])
        return found

    unseen, asked = [], 0
    for method, path, scope in whole.routes():
        if method != "GET" or scope not in PERSONAL or path in ABOUT_NOBODY:
            continue
        role = next(role for role in Role if scope in ROLES[role])
        target = path.replace("{subject}", PERSON["subject"]).replace("{identity}", incident.id)
        before = await rows()
        status = await whole.status("GET", target.replace("{document}", "report"), token=whole.tokens[role])
        assert status == 200, (path, status)
        asked += 1
        if await rows() == before:
            unseen.append(path)
    assert unseen == []
    assert asked >= 14
