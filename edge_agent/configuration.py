"""The enterprise's configuration as one versioned document: show, compare, apply, roll back.

A change is a whole document, applied all or nothing as a new version with actor, time and reason. Secrets
never leave: they are taken out of what is shown and stored sealed; a document that leaves one out keeps it, unless
it sends the secret elsewhere: who may change where something goes need not be one who knows its password.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import BaseModel, SecretStr, ValidationError

from edge_agent.config import ConfigError, SiteConfig, explain
from edge_agent.database import Database
from edge_agent.wiring import wiring_faults

SECRETS_AAD = b"edge-agent site secrets v1"
SECRET_KEYS = frozenset({"password", "secret"})
SECRET_OPTIONS = frozenset({"password", "secret", "key", "pin"})  # in a driver's options: OSDP keys and the like


KEPT_ANYWHERE = frozenset({"key"})  # of OSDP's secure channel: never sent, and known to nobody who could enter it


class StaleVersion(Exception):
    """Somebody else changed the configuration first."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the configuration is at version {current} now; read it again and repeat the change")
        self.current = current


@dataclass(frozen=True, slots=True)
class Version:
    number: int
    at: datetime
    actor: str
    reason: str
    site: SiteConfig


@dataclass(frozen=True, slots=True)
class Change:
    """One difference; secrets show only that they differ."""

    path: str
    before: Any
    after: Any


def _dump(site: BaseModel) -> tuple[dict[str, Any], dict[str, str]]:
    """The document without secrets, and the secrets by path. List items are addressed by their name."""
    secrets: dict[str, str] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            shown = {}
            for key, item in value.items():
                if key in SECRET_KEYS and isinstance(item, SecretStr):
                    item = item.get_secret_value()
                    if item:
                        secrets[f"{path}/{key}"] = item
                    continue
                if key in SECRET_OPTIONS and isinstance(item, str) and "/options" in path:
                    secrets[f"{path}/{key}"] = item
                    continue
                shown[str(key)] = walk(item, f"{path}/{key}")
            return shown
        if isinstance(value, frozenset | set):
            return sorted(walk(item, path) for item in value)
        if isinstance(value, list | tuple):
            return [
                walk(item, f"{path}/{item['name'] if isinstance(item, dict) and 'name' in item else n}")
                for n, item in enumerate(value)
            ]
        return value

    # Python objects keep SecretStr apart; a second dump turns the rest into JSON values.
    document = walk(site.model_dump(mode="python"), "")
    return json.loads(json.dumps(document, default=str)), secrets


def public(site: BaseModel) -> dict[str, Any]:
    """The declarative document, or a part of it, as `GET /config` shows it: complete, without secrets."""
    return _dump(site)[0]


def _with_secrets(document: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """Fill in secrets that `document` leaves out, where the same named item had one."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for path, secret in secrets.items():
        *parts, field = path.strip("/").split("/")
        place = _at(copy, parts)
        if place is not None:
            place.setdefault(field, secret)
    return copy


def _at(document: Any, parts: Sequence[str]) -> Any:
    """The object at this path, list items by name or number; None if there is none."""
    place = document
    for part in parts:
        if isinstance(place, list):
            named = [item for item in place if isinstance(item, dict) and str(item.get("name")) == part]
            numbered = place[int(part)] if part.isdecimal() and int(part) < len(place) else None
            place = named[0] if named else numbered
        elif isinstance(place, dict):
            place = place.get(part)
        else:
            return None
    return place if isinstance(place, dict) else None


def _destination(owner: Sequence[str], item: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where the secrets of a device, an upstream or the identity provider go. A device keeps its serial number
    when it gets another address; one without is known by its address alone."""
    if owner[0] == "devices":
        return item.get("kind"), item.get("serial") or item.get("address", "")
    return item.get("kind", "webhook"), item.get("url"), item.get("issuer")


def _sent_elsewhere(before: Mapping[str, Any], after: Mapping[str, Any], secrets: Iterable[str]) -> list[str]:
    """One sentence per secret that `after` leaves out although its destination is another one."""
    problems = []
    for path in sorted(secrets):
        *place, field = path.strip("/").split("/")
        if field in KEPT_ANYWHERE:
            continue
        owner = place[:2]  # devices/lobby, upstreams/payroll, sign_in/oidc
        found, holder = _at(after, owner), _at(after, place)
        if found is None or holder is None or field in holder:
            continue
        old = _at(before, owner) or {}
        if _destination(owner, found) != _destination(owner, old):
            problems.append(
                f"{'.'.join([*place, field])}: 目的地变了，请重新填写（不再需要就留空字符串）· "
                'it would go elsewhere now; enter it again, or "" if none is needed'
            )
    return problems


def differences(before: SiteConfig, after: SiteConfig) -> list[Change]:
    """What would change, path by path. Named items are compared by name, not by place."""
    found: list[Change] = []

    def keyed(value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
            return {item["name"]: item for item in value}
        return value

    def walk(old: Any, new: Any, path: str) -> None:
        old, new = keyed(old), keyed(new)
        if isinstance(old, dict) and isinstance(new, dict):
            for key in [*old, *(k for k in new if k not in old)]:
                walk(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        elif old != new and not (old in (None, [], {}) and new in (None, [], {})):
            found.append(Change(path, old, new))

    (old_document, old_secrets), (new_document, new_secrets) = _dump(before), _dump(after)
    walk(old_document, new_document, "")
    found += [
        Change(path.strip("/").replace("/", "."), "(secret)", "(changed)")
        for path in sorted(old_secrets.keys() | new_secrets.keys())
        if old_secrets.get(path) != new_secrets.get(path)
    ]
    return found


def _amiss(site: SiteConfig, document: Mapping[str, Any]) -> list[str]:
    """What a version in force has that a new one may not."""
    found = wiring_faults(site.access, {device.name: device for device in site.devices})
    try:
        SiteConfig.model_validate(document)
    except ValidationError as exc:
        found += explain(exc, document)
    return found


def _said(problems: Iterable[str]) -> set[str]:
    """Each fault alone, without its place in a list and without what is allowed, which other changes move."""
    said = {re.sub(r"\[\d+\]", "", part) for problem in problems for part in problem.split("; ")}
    return {part.removeprefix("document: ") for part in said if not part.startswith("allowed")}


class Configuration:
    """Holds the version in force; `apply` and `rollback` make new ones."""

    def __init__(self, database: Database, *, key: bytes) -> None:
        self._database = database
        self._cipher = AESGCM(key)
        self._changed = asyncio.Condition()
        self.version: Version | None = None

    @property
    def site(self) -> SiteConfig:
        if self.version is None:
            raise RuntimeError("load() comes first")
        return self.version.site

    async def load(self, seed: SiteConfig, *, now: datetime) -> Version:
        """The newest version; on a fresh install `seed` becomes version 1."""
        found = await self._database.read(lambda c: self._read(c, None))
        if found is None:
            await self._database.write(
                lambda c: self._insert(c, seed, number=1, actor="agent.toml", reason="first start", now=now)
            )
            found = await self._database.read(lambda c: self._read(c, None))
        if found is None:
            raise RuntimeError("the first configuration version was not stored")
        self.version = found
        return found

    def complete(self, document: Mapping[str, Any]) -> SiteConfig:
        """Validate a whole document against the schema, secrets kept where they go on to the same place.

        What an older release let through and is in force already stands in no other change's way: a modality must be
        switched off, a recipient taken out, whatever else is amiss. Raises ConfigError.
        """
        before, secrets = _dump(self.site)
        merged = _with_secrets(document, secrets)
        try:
            site = SiteConfig.model_validate(merged)
        except ValidationError as exc:
            problems = explain(exc, merged)
            if not _said(problems) <= _said(_amiss(self.site, _with_secrets(before, secrets))):
                raise ConfigError("configuration", problems) from None
            site = SiteConfig.model_validate(merged, context={"stored": True})
        if problems := _sent_elsewhere(before, document, secrets):
            raise ConfigError("configuration", problems)
        return site

    async def apply(
        self, site: SiteConfig, *, actor: str, reason: str, now: datetime, expected: int | None = None
    ) -> Version:
        """Make `site` the next version. Raises StaleVersion if `expected` is no longer the newest."""

        def work(connection: sqlite3.Connection) -> Version:
            newest = self._read(connection, None)
            number = newest.number if newest else 0
            if expected is not None and expected != number:
                raise StaleVersion(number)
            return self._insert(connection, site, number=number + 1, actor=actor, reason=reason, now=now)

        version = await self._database.write(work)
        async with self._changed:
            self.version = version
            self._changed.notify_all()
        return version

    async def change(
        self, update: Callable[[SiteConfig], SiteConfig], *, actor: str, reason: str, now: datetime
    ) -> Version:
        """Make what `update` makes of the newest version the next one, whoever else changes something meanwhile."""
        number = 0
        while True:
            before = await self.changed_since(number)
            number = before.number
            with contextlib.suppress(StaleVersion):
                return await self.apply(update(before.site), actor=actor, reason=reason, now=now, expected=number)

    async def rollback(self, number: int, *, actor: str, now: datetime) -> Version:
        """A new version equal to version `number`. Raises KeyError if there is none."""
        old = await self.at(number)
        return await self.apply(old.site, actor=actor, reason=f"back to version {number}", now=now)

    async def at(self, number: int) -> Version:
        found = await self._database.read(lambda c: self._read(c, number))
        if found is None:
            raise KeyError(number)
        return found

    async def history(self, limit: int = 100) -> list[tuple[int, str, str, str]]:
        """(number, at, actor, reason), newest first."""
        return await self._database.read(
            lambda c: c.execute(
                "SELECT version, at, actor, reason FROM config_versions ORDER BY version DESC LIMIT ?", (limit,)
            ).fetchall()
        )

    async def documents_since(self, reason: str, *, after: str) -> list[dict[str, Any]]:
        """From the first version applied for `reason`, later than any applied for `after`: oldest first, no secrets."""
        rows = await self._database.read(
            lambda c: c.execute(
                "SELECT document FROM config_versions WHERE version >= (SELECT min(version) FROM config_versions"
                " WHERE reason = ? AND version > (SELECT coalesce(max(version), 0) FROM config_versions"
                " WHERE reason = ?)) ORDER BY version",
                (reason, after),
            ).fetchall()
        )
        return [json.loads(document) for (document,) in rows]

    async def changed_since(self, number: int) -> Version:
        """Wait for a version newer than `number`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.version is not None and self.version.number > number)
            if self.version is None:
                raise RuntimeError("unreachable: the condition above holds")
            return self.version

    def _insert(
        self, connection: sqlite3.Connection, site: SiteConfig, *, number: int, actor: str, reason: str, now: datetime
    ) -> Version:
        document, secrets = _dump(site)
        nonce = os.urandom(12)
        sealed = nonce + self._cipher.encrypt(nonce, json.dumps(secrets).encode(), SECRETS_AAD) if secrets else None
        connection.execute(
            "INSERT INTO config_versions VALUES (?,?,?,?,?,?)",
            (number, now.isoformat(), actor, reason, json.dumps(document, ensure_ascii=False), sealed),
        )
        return Version(number, now, actor, reason, site)

    def _read(self, connection: sqlite3.Connection, number: int | None) -> Version | None:
        row = connection.execute(
            "SELECT version, at, actor, reason, document, secrets FROM config_versions"
            " WHERE ?1 IS NULL OR version = ?1 ORDER BY version DESC LIMIT 1",
            (number,),
        ).fetchone()
        if row is None:
            return None
        version, at, actor, reason, document, sealed = row
        secrets: dict[str, str] = {}
        if sealed is not None:
            try:
                secrets = json.loads(self._cipher.decrypt(sealed[:12], sealed[12:], SECRETS_AAD))
            except InvalidTag:
                raise ConfigError(
                    f"configuration version {version}",
                    ["its secrets cannot be opened with this machine's key; restore the key or enter them again"],
                ) from None
        site = SiteConfig.model_validate(_with_secrets(json.loads(document), secrets), context={"stored": True})
        return Version(version, datetime.fromisoformat(at), actor, reason, site)
