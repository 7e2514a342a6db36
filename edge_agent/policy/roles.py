"""Who may do what. A route names one scope; a role is a set of scopes; a token carries its own.

Opening a door, erasing a person and exporting data are scopes of their own: no other scope implies them.
"""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    STATUS_READ = "status:read"
    DEVICES_READ = "devices:read"
    DEVICES_WRITE = "devices:write"
    DEVICES_COMMAND = "devices:command"
    DOORS_READ = "doors:read"
    DOORS_OPEN = "doors:open"
    DOORS_WRITE = "doors:write"
    PEOPLE_READ = "people:read"
    PEOPLE_WRITE = "people:write"
    ENROL = "people:enrol"
    ERASE = "people:erase"
    EXPORT = "people:export"
    EVENTS_READ = "events:read"
    UPSTREAMS_READ = "upstreams:read"
    UPSTREAMS_WRITE = "upstreams:write"
    QUARANTINE_WRITE = "quarantine:write"
    PRIVACY_READ = "privacy:read"
    PRIVACY_WRITE = "privacy:write"
    AUDIT_READ = "audit:read"
    CONFIG_READ = "config:read"
    CONFIG_WRITE = "config:write"
    KEYS_WRITE = "keys:write"
    BACKUP = "backup"
    ACCOUNTS_WRITE = "accounts:write"
    METRICS_READ = "metrics:read"


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    SECURITY = "security"
    PRIVACY_OFFICER = "privacy_officer"
    AUDITOR = "auditor"
    INTEGRATION = "integration"


ROLES: dict[Role, frozenset[Scope]] = {
    # The administrator configures; people's data are the operator's and the privacy officer's.
    Role.ADMIN: frozenset(Scope) - {Scope.EXPORT},
    Role.OPERATOR: frozenset(
        {
            Scope.STATUS_READ,
            Scope.DEVICES_READ,
            Scope.DEVICES_COMMAND,
            Scope.DOORS_READ,
            Scope.PEOPLE_READ,
            Scope.PEOPLE_WRITE,
            Scope.ENROL,
            Scope.EVENTS_READ,
            Scope.UPSTREAMS_READ,
            Scope.QUARANTINE_WRITE,
            Scope.PRIVACY_READ,
        }
    ),
    Role.SECURITY: frozenset(
        {
            Scope.STATUS_READ,
            Scope.DEVICES_READ,
            Scope.DOORS_READ,
            Scope.DOORS_OPEN,
            Scope.EVENTS_READ,
            Scope.PEOPLE_READ,
        }
    ),
    Role.PRIVACY_OFFICER: frozenset(
        {
            Scope.STATUS_READ,
            Scope.PEOPLE_READ,
            Scope.PRIVACY_READ,
            Scope.PRIVACY_WRITE,
            Scope.ERASE,
            Scope.EXPORT,
            Scope.EVENTS_READ,
            Scope.UPSTREAMS_READ,
            Scope.AUDIT_READ,
            Scope.CONFIG_READ,
        }
    ),
    Role.AUDITOR: frozenset(
        {
            Scope.STATUS_READ,
            Scope.DEVICES_READ,
            Scope.DOORS_READ,
            Scope.UPSTREAMS_READ,
            Scope.PRIVACY_READ,
            Scope.AUDIT_READ,
            Scope.CONFIG_READ,
        }
    ),
    Role.INTEGRATION: frozenset({Scope.STATUS_READ, Scope.EVENTS_READ, Scope.METRICS_READ}),
}
