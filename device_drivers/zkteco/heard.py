"""Which records of the log are known already on this connection, so that confirming live events costs no storage.

A reading of the log meets what live events told before it, and its own overlap. Equal records are told apart by
counting them together, so they are left out together or not at all: only if at least as many were recorded in
one call. What came in several calls may be one punch sent again, and the agent may have kept it as one: then the
log tells it all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from device_drivers.events import Punch

MAX_KEYS = 2048  # the oldest are forgotten: then the agent's dedupe sees these records once more

Key = tuple[object, ...]


def key_of(punch: Punch) -> Key:
    return punch.user_id, punch.device_time or punch.raw, punch.verify_code, punch.state_code


class Heard:
    """Punches made durable on this connection that the next reading may meet."""

    def __init__(self) -> None:
        self._counts: Counter[Key] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, punches: Sequence[Punch]) -> None:
        """Note the punches of one call once they are durable."""
        for key, count in Counter(map(key_of, punches)).items():
            self._counts[key] = max(self._counts[key], count)
        while len(self._counts) > MAX_KEYS:
            del self._counts[next(iter(self._counts))]

    def unknown(self, punches: Sequence[Punch]) -> list[Punch]:
        """Those of one batch that have to be told, in order. What is left out is no longer expected."""
        groups = Counter(key_of(punch) for punch in punches)
        known = {key for key, count in groups.items() if self._counts[key] >= count}
        for key, count in groups.items():
            left = self._counts[key] - count if key in known else 0
            if left > 0:
                self._counts[key] = left
            else:
                del self._counts[key]
        return [punch for punch in punches if key_of(punch) not in known]
