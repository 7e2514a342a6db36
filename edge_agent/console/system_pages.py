"""The machine itself: its health, its keys and backups, and the sealed state. No people."""

from __future__ import annotations

import os
import platform
import shutil

from fastapi.responses import RedirectResponse, Response

from edge_agent import __version__
from edge_agent.api.context import Gateway
from edge_agent.api.health import status_of
from edge_agent.console import views
from edge_agent.console.page import Visit, counted
from edge_agent.policy.roles import Scope

GIB = 2**30


class SystemPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def health(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        status = await status_of(gateway)
        checks = [
            {"label": lamp.label, "value": lamp.value, "tone": lamp.tone or "ok", "detail": "", "href": lamp.href}
            for lamp in visit.pages.lamps(t)
        ]
        ballast = gateway.governance.database.ballast
        checks.append(
            {
                "label": t("应急空间", "Ballast"),
                "value": t("已备", "Held") if ballast.held else t("未备", "Not held"),
                "tone": "ok" if ballast.held else "warn",
                "detail": t("磁盘写满时用来腾挪，平时不动", "kept back so that a full disk can be recovered from"),
                "href": "",
            }
        )
        bad = [check for check in checks if check["tone"] in {"bad", "warn", "seal"}]
        usage = shutil.disk_usage(gateway.data_dir)
        books = views.total(await gateway.outbox.stats())
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return visit.render(
            "health.html",
            cur="health",
            headline=t(f"{len(bad)} 项要留意", f"{counted(len(bad), 'check needs', 'checks need')} a look")
            if bad
            else t("一切正常", "Everything is fine"),
            checks=checks,
            warnings=views.warnings(gateway, t),
            ledger=books,
            facts=[
                (t("主机", "Host"), platform.node()),
                (t("版本", "Version"), __version__),
                (t("配置", "Configuration"), t(f"第 {status.config_version} 版", f"version {status.config_version}")),
                (t("已运行", "Up"), views.lasted(gateway.governance.now() - gateway.started_at, t)),
                (t("磁盘可用", "Disk free"), f"{usage.free / GIB:.1f} / {usage.total / GIB:.1f} GiB"),
                (t("内存", "Memory"), f"{pages / GIB:.1f} GiB"),
                (t("处理器", "Processors"), str(os.cpu_count() or 0)),
                (t("负载", "Load"), " ".join(f"{load:.2f}" for load in os.getloadavg())),
                ("Python", platform.python_version()),
            ],
            templates=views.templates(gateway, t),
            sealed=gateway.biometrics.sealed,
            can_keys=visit.may(Scope.KEYS_WRITE),
            can_backup=visit.may(Scope.BACKUP),
        )

    async def sealed(self, visit: Visit) -> Response:
        if not self._gateway.biometrics.sealed:
            return RedirectResponse("/", status_code=303)
        return visit.render(
            "sealed.html",
            cur="overview",
            reason=self._gateway.biometrics.store.seal_reason,
            may_unseal=visit.may(Scope.KEYS_WRITE),
        )

    async def more(self, visit: Visit) -> Response:
        return visit.render("more.html", cur="more")
