"""What one recipient may see of an event: CloudEvents 1.0, fields by allow-list.

An event leaves with its id, type, times and sequence; everything else only if the recipient's `fields`
name it. Keys nobody placed here never leave, whatever a flow wrote into `data`. Templates and images
cannot be among them: no field is one.

A pseudonymous recipient gets subjects as keyed hashes of its own, so two recipients cannot join what
they hold, and neither can ask the gateway's other data.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_agent.database import utc_text
from edge_agent.delivery.event import Stored

# Field of the allow-list -> keys of an event's data that it lets through.
FIELDS: dict[str, tuple[str, ...]] = {
    "subject": ("known",),
    "user_id": ("user_id",),
    "name": (),
    "location": ("site", "location"),
    "device": ("serial", "record_no", "origin", "occurrence"),
    "verify": ("verify_mode", "verify_code", "state", "state_code", "pad", "factors"),
    "clock": (
        "device_time",
        "timezone",
        "received_at",
        "clock_offset_s",
        "clock_measured_at",
        "monotonic_s",
        "boot",
    ),
    "work_code": ("work_code",),
    "door": ("door", "reader", "point", "direction", "reason", "reason_code", "basis", "mode", "warnings"),
}
# What an event means without naming anybody: always there.
PLAIN = ("state", "modality", "notice_version", "count", "fault", "seq", "mac", "version", "gap", "public_key")

SPEC_VERSION = "1.0"
TYPE_PREFIX = "edge-agent."


@dataclass(frozen=True, slots=True)
class Recipient:
    """One upstream's entry in the register of recipients: who, and what leaves for them."""

    name: str
    fields: frozenset[str]
    pseudonym_key: bytes | None = field(default=None, repr=False)  # set: subjects leave as its hashes
    purpose: str = ""

    def __post_init__(self) -> None:
        if unknown := self.fields - FIELDS.keys():
            raise ValueError(f"{self.name}: unknown field {min(unknown)!r}; known: {', '.join(FIELDS)}")

    def pseudonym(self, subject: str) -> str:
        if self.pseudonym_key is None:
            return subject
        return hmac.new(self.pseudonym_key, subject.encode(), hashlib.sha256).hexdigest()[:32]


def cloud_event(
    stored: Stored, recipient: Recipient, *, gateway: str, tenant: str, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One event as this recipient gets it. `names` by subject, asked for only where `fields` has them."""
    event, allowed = stored.event, recipient.fields
    keys = {key for name in allowed for key in FIELDS[name]} | set(PLAIN)
    data = {key: value for key, value in event.data.items() if key in keys}
    if "device" in allowed:
        data["device"] = event.device
    told: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": f"/{tenant}/{gateway}",
        "type": TYPE_PREFIX + event.type,
        "time": utc_text(event.occurred_at),
        "sequence": f"{stored.sequence:016d}",  # CloudEvents sequence extension: compares as text
        "recordedtime": utc_text(stored.recorded_at),
        "datacontenttype": "application/json",
        "data": data,
    }
    if event.subject is not None and "subject" in allowed:
        told["subject"] = recipient.pseudonym(event.subject)
        if "name" in allowed and names and event.subject in names:
            data["name"] = names[event.subject]
    return told
