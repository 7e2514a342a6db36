"""Which acts take two people: one asks, another decides, within a time limit.

The enterprise names them. Taking one off the list again is itself an act of two people, or the list would
protect nothing. Withdrawing consent is never on it: a withdrawal has to work at once.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_serializer


class ActKind(StrEnum):
    DOOR_OPEN = "door_open"  # and every order that lets people through
    LOCKDOWN = "lockdown"  # ordering and lifting
    ERASURE = "erasure"
    EXPORT = "export"
    DISCLOSURE = "disclosure"  # to an authority, on a legal reference
    KEY_ROTATION = "key_rotation"
    DECOMMISSION = "decommission"


class TwoPeople(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    acts: Annotated[frozenset[ActKind], Field(max_length=len(ActKind))] = frozenset({ActKind.DISCLOSURE})
    minutes: int = Field(60, ge=1, le=7 * 24 * 60, description="an act that nobody decided by then falls away")

    @field_serializer("acts")
    def _in_order(self, acts: frozenset[ActKind]) -> list[ActKind]:
        return sorted(acts)  # the same rules read the same, whatever order a set has today

    @property
    def lifetime(self) -> timedelta:
        return timedelta(minutes=self.minutes)

    def weakened_by(self, other: TwoPeople) -> frozenset[ActKind]:
        """What one person could do alone under `other` and cannot now."""
        return self.acts - other.acts


class WhyNot(StrEnum):
    """Why somebody may not decide."""

    MACHINE = "machine"  # a token is nobody
    OWN_ACT = "own_act"
    PASSWORD = "password"  # noqa: S105 - somebody else knows the asker's or the decider's
    PROVIDER = "provider"  # one of the two chose who vouches for the other


def undecidable(
    *, asker: str, decider: str, decider_is_person: bool, own_passwords: bool, provider_by: str = ""
) -> WhyNot | None:
    """None if this person may decide.

    `provider_by` is who set up the identity provider that vouches for one of them, if it does.
    """
    if not decider_is_person:
        return WhyNot.MACHINE
    if asker == decider:
        return WhyNot.OWN_ACT
    if not own_passwords:
        return WhyNot.PASSWORD
    if provider_by in {asker, decider}:
        return WhyNot.PROVIDER
    return None
