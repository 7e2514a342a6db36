"""Settings: the site's terms, accounts and tokens, the certificate, the configuration and its versions."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import ssl
from datetime import datetime
from typing import Any

from cryptography import x509
from fastapi.responses import Response

from edge_agent.api import access_tokens, accounts
from edge_agent.api.context import Gateway
from edge_agent.api.session import account_etag, account_view
from edge_agent.config import ModalitySwitch
from edge_agent.configuration import Change, differences, public
from edge_agent.console import views
from edge_agent.console.approval_pages import KINDS
from edge_agent.console.page import Visit, number
from edge_agent.console.words import MODALITIES, ROLES
from edge_agent.policy.roles import Role, Scope
from edge_agent.policy.two_people import ActKind
from templates_store.template import Modality

HISTORY = 50
CERTIFICATE_TIMEOUT_S = 2.0


class SettingsPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def settings(self, visit: Visit) -> Response:
        t, site = visit.t, self._gateway.governance.configuration.site
        switches = {m: site.modalities.get(m, ModalitySwitch()) for m in Modality}
        on = [t(*MODALITIES[m][1:]) for m, switch in switches.items() if switch.enabled]
        return visit.render(
            "settings.html",
            cur="settings",
            tab="site",
            headline=t(f"生物特征已开启：{'、'.join(on)}", f"Biometrics switched on: {', '.join(on)}")
            if on
            else t("四类生物特征全部关闭", "All four biometrics are off"),
            config=site.model_dump(mode="json", include={"site", "timezone", "privacy", "retention"}),
            switches=[
                (m.value, MODALITIES[m][0], t(*MODALITIES[m][1:]), switch.model_dump(mode="json"))
                for m, switch in switches.items()
            ],
            certificate=await self._certificate(visit),
            two_people=site.two_people.model_dump(mode="json"),
            acts=[(kind.value, t(*words)) for kind, words in KINDS.items()],
            ending=ActKind.DECOMMISSION in site.two_people.acts and visit.may(Scope.KEYS_WRITE),
            can_write=visit.may(Scope.CONFIG_WRITE),
        )

    async def _certificate(self, visit: Visit) -> dict[str, str] | None:
        """As a browser gets it from this very port; nothing is read from disk."""
        host, port = visit.request.scope.get("server") or ("", 0)
        try:
            ipaddress.ip_address(host)
            pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)), timeout=CERTIFICATE_TIMEOUT_S)
        except (OSError, ValueError):
            return None
        found = x509.load_pem_x509_certificate(pem.encode())
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
        zone = views.zone_of(self._gateway)
        return {
            "fingerprint": " ".join(digest[i : i + 4] for i in range(0, len(digest), 4)),
            "issuer": found.issuer.rfc4514_string(),
            "until": found.not_valid_after_utc.astimezone(zone).strftime("%Y-%m-%d"),
        }

    async def accounts(self, visit: Visit) -> Response:
        t, governance = visit.t, self._gateway.governance
        now, zone = governance.now(), views.zone_of(self._gateway)
        people = await governance.database.read(accounts.listing)
        tokens = await governance.database.read(access_tokens.listing)
        sessions = await governance.database.read(accounts.sessions)
        without = [account.name for account in people if not account.has_totp and not account.disabled]

        def at(text: str) -> str:
            return datetime.fromisoformat(text).astimezone(zone).strftime("%m-%d %H:%M")

        return visit.render(
            "accounts.html",
            cur="settings",
            tab="accounts",
            headline=t(f"{len(without)} 个账号没有第二因素", f"Accounts without a second factor: {len(without)}")
            if without
            else t("每个账号都有第二因素", "Every account has a second factor"),
            accounts=[
                {
                    "name": account.name,
                    "role": t(*ROLES[account.role]),
                    "has_totp": account.has_totp,
                    "disabled": account.disabled,
                    "own": account.name == visit.caller.name,
                    "etag": account_etag(account),
                    "base": account_view(account).model_dump_json(include={"role", "second_factor", "disabled"}),
                }
                for account in people
            ],
            roles=[(role.value, t(*ROLES[role])) for role in Role],
            scopes=sorted(visit.caller.scopes),
            tokens=[
                {
                    "name": token.name,
                    "scopes": sorted(token.scopes),
                    "until": token.expires_at.astimezone(zone).strftime("%Y-%m-%d"),
                    "valid": token.revoked_at is None and now < token.expires_at,
                }
                for token in tokens
            ],
            sessions=[
                {
                    "handle": handle,
                    "account": name,
                    "since": at(created),
                    "seen": at(seen),
                    "address": address,
                    "agent": agent,
                }
                for handle, name, created, seen, address, agent in sessions
            ],
        )

    async def configuration(self, visit: Visit) -> Response:
        t, configuration = visit.t, self._gateway.governance.configuration
        version = configuration.version
        count = version.number if version else 0
        return visit.render(
            "configuration.html",
            cur="settings",
            tab="configuration",
            headline=t(f"配置第 {count} 版正在生效", f"Configuration version {count} is in force"),
            document=json.dumps(public(configuration.site), ensure_ascii=False, indent=2),
            versions=await self._history(),
            can_write=visit.may(Scope.CONFIG_WRITE),
        )

    async def version(self, visit: Visit) -> Response:
        """What one version changed, and what going back to it would change."""
        t, configuration = visit.t, self._gateway.governance.configuration
        wanted, newest = number(visit.path("number")), configuration.version
        try:
            found = await configuration.at(wanted or 0)
        except KeyError:
            return visit.missing(t("没有这一版配置", "There is no such version"))
        earlier = await configuration.at(found.number - 1) if found.number > 1 else None
        return visit.render(
            "version.html",
            cur="settings",
            tab="configuration",
            found=found,
            at=found.at.astimezone(views.zone_of(self._gateway)).strftime("%Y-%m-%d %H:%M:%S"),
            changed=_lines(differences(earlier.site, found.site)) if earlier else None,
            back=_lines(differences(configuration.site, found.site)),
            newest=newest.number if newest else 0,
            can_write=visit.may(Scope.CONFIG_WRITE),
        )

    async def _history(self) -> list[dict[str, Any]]:
        zone = views.zone_of(self._gateway)
        return [
            {
                "number": version,
                "at": datetime.fromisoformat(at).astimezone(zone).strftime("%Y-%m-%d %H:%M"),
                "actor": actor,
                "reason": reason,
            }
            for version, at, actor, reason in await self._gateway.governance.configuration.history(HISTORY)
        ]

    async def account(self, visit: Visit) -> Response:
        """One's own password and second factor; every role has them."""
        caller = visit.caller
        mine = await self._gateway.governance.database.read(lambda c: accounts.find(c, caller.name))
        return visit.render(
            "account.html",
            cur="account",
            name=caller.name,
            role=visit.t(*ROLES[caller.role]) if caller.role else "",
            has_totp=bool(mine and mine.has_totp),
        )


def _lines(changes: list[Change]) -> list[dict[str, str]]:
    def said(value: Any) -> str:
        return "—" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return [{"path": change.path, "before": said(change.before), "after": said(change.after)} for change in changes]
