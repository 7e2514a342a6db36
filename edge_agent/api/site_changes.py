"""Changing the configuration by parts: one section, or one named item of a section, based on what was read."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from edge_agent.api import accounts
from edge_agent.api.access import Caller
from edge_agent.api.context import Governance, etag, unchanged
from edge_agent.api.problems import FieldFault, Problem
from edge_agent.api.two_people import Leave, guard
from edge_agent.audit import Entry
from edge_agent.config import ConfigError, SiteConfig
from edge_agent.configuration import StaleVersion, public
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import Loosened, loosened

Listed = Literal["devices", "upstreams"]
LOOSEN = Leave("config.loosen", Scope.CONFIG_WRITE)


async def apply_site(
    context: Governance, actor: str, site: SiteConfig, reason: str, expected: int | None, *, decided: bool = False
) -> int:
    """Make `site` the next version and note it. `decided` says that two people did. Raises Problem 409, 412, and Held.

    Whom an identity provider vouched for that is no longer configured is signed out.
    """
    before = context.configuration.site
    if not decided:
        guard(before.two_people, site.two_people)
        if expected is not None and expected != number(context):  # before an approval is used up
            raise stale(number(context))
        await _approved(context, actor, before, site)
    try:
        version = await context.configuration.apply(
            site, actor=actor, reason=reason, now=context.now(), expected=expected
        )
    except StaleVersion as exc:
        raise stale(exc.current) from None
    if before.sign_in != site.sign_in:
        issuer = site.sign_in.oidc.issuer if site.sign_in.oidc else ""
        await context.database.write(lambda c: accounts.close_provided_sessions(c, but=issuer))
    await context.note(
        Entry(actor=actor, action="config.apply", object=str(version.number), details={"reason": reason})
    )
    return version.number


class AskedConfiguration(Loosened):
    """What the second person decides on; `digest` ties the approval to these very rules."""

    digest: str


async def _approved(context: Governance, actor: str, before: SiteConfig, site: SiteConfig) -> None:
    """Raises Held if the change lets happen what takes two people as an act."""
    found = loosened(
        before.access,
        site.access,
        same_clock=before.timezone == site.timezone,
        templates_days=(before.retention.templates_days, site.retention.templates_days),
    )
    kinds = found.kinds() & before.two_people.acts
    if not kinds:
        return
    rules = [public(site.access), site.timezone, site.retention.templates_days]
    digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
    asked = AskedConfiguration(**found.model_dump(), digest=digest)
    await LOOSEN.require(context, asked, Caller(actor, frozenset()), min(kinds))


def completed(context: Governance, document: dict[str, Any]) -> SiteConfig:
    """A whole document, secrets kept. Raises Problem 422 with one entry a fault."""
    try:
        return context.configuration.complete(document)
    except ConfigError as exc:
        raise invalid(exc) from None


def stale(current: int) -> Problem:
    return Problem(
        412,
        f"somebody changed the configuration first: it is at version {current} now",
        code="stale",
        headers={"ETag": etag(current)},
    )


def invalid(exc: ConfigError) -> Problem:
    faults = []
    for problem in exc.problems:
        field, _, rest = problem.partition(": ")
        faults.append(FieldFault(field=field, problem=rest))
    return Problem(422, "; ".join(exc.problems[:3]), code="invalid", errors=faults)


def number(context: Governance) -> int:
    version = context.configuration.version
    return version.number if version else 0


def item_of(context: Governance, section: Listed, name: str) -> dict[str, Any]:
    """One device or upstream as it is configured, without secrets. Raises Problem 404."""
    found = next((item for item in getattr(context.configuration.site, section) if item.name == name), None)
    if found is None:
        raise Problem(404, f"there is no {section[:-1]} {name[:64]!r}", code="unknown")
    return public(found)


async def add_item(context: Governance, actor: str, section: Listed, item: dict[str, Any], *, reason: str) -> None:
    """Everything else of the configuration stays. Raises Problem 409, 412, 422."""
    document = public(context.configuration.site)
    if any(each["name"] == item["name"] for each in document[section]):
        raise Problem(409, f"name: {item['name']!r} is taken", code="taken")
    document[section] = [*document[section], item]
    await _apply(context, actor, document, reason)


async def change_item(
    context: Governance, actor: str, section: Listed, name: str, change: dict[str, Any], expected: int
) -> None:
    """What `change` leaves out stays, secrets too. Raises Problem 404, 412, 422."""
    current = item_of(context, section, name)
    unchanged(f"this {section[:-1]}", current, expected)
    document = public(context.configuration.site)
    document[section] = [current | change if item["name"] == name else item for item in document[section]]
    await _apply(context, actor, document, f"change {section[:-1]} {name}")


async def remove_item(context: Governance, actor: str, section: Listed, name: str, expected: int) -> None:
    """Raises Problem 404, 412."""
    unchanged(f"this {section[:-1]}", item_of(context, section, name), expected)
    document = public(context.configuration.site)
    document[section] = [item for item in document[section] if item["name"] != name]
    await _apply(context, actor, document, f"remove {section[:-1]} {name}")


async def _apply(context: Governance, actor: str, document: dict[str, Any], reason: str) -> None:
    await apply_site(context, actor, completed(context, document), reason, number(context))
