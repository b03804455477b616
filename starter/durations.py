"""Times as people say them: durations first, the clock where it matters; and durations as they type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86400
CLOCK_SECONDS = 5
"""How far apart clocks are that are set by a time service, amply."""

UNITS = {"s": 1, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}


def span(seconds: float) -> str:
    """Seconds as `42 s`, `3 min`, `5 h`, `12 d`; two units are never mixed, times in the future count as zero."""
    whole = max(0, int(seconds))
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        # Below two units the smaller one is still the more telling: 90 s, not 1 min.
        if whole >= 2 * size:
            return f"{whole // size} {unit}"
    return f"{whole} s"


def precise(seconds: float) -> str:
    """Seconds of a step: tenths below ten seconds (`1.6 s`), else as `span`."""
    return f"{max(0.0, seconds):.1f} s" if seconds < 10 else span(seconds)


def since(moment: datetime, now: datetime | None = None) -> str:
    """How long ago a moment is, as `span`."""
    return span(((now or datetime.now(UTC)) - moment).total_seconds())


def is_ahead(moment: datetime, now: datetime | None = None) -> bool:
    """Whether a moment that is past by somebody else's clock has not come yet by ours, so that no span can be told."""
    return (moment - (now or datetime.now(UTC))).total_seconds() > CLOCK_SECONDS


def clock(moment: datetime, now: datetime | None = None) -> str:
    """Local clock time `14:03:02`; with its date when that is another day."""
    local = moment.astimezone()
    today = (now or datetime.now(UTC)).astimezone().date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S")


def parse_span(text: str) -> float:
    """Seconds of `90`, `30s`, `5m`, `2h`, `1d`. Raises `ValueError` with what is allowed."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration; examples: 30s, 5m, 2h")
    return float(match[1]) * UNITS[match[2] or "s"]


def moment_of(value: object) -> datetime | None:
    """A time from a datetime or RFC 3339 text; None for anything else."""
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return None
    else:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def rfc3339(moment: datetime) -> str:
    """UTC with `Z`; milliseconds where there are any, so that short actions can be measured."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds") + "Z"
