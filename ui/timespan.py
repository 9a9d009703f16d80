"""Turns the times people write into Unix nanoseconds and half-open ranges; the same in commands and HTTP parameters.

A time is one of
- RFC 3339 with its offset: `2026-03-01T12:00:00Z`, `2026-03-01 12:00:00.25+01:00`; a time without an offset is refused,
  because the reader's zone, the viewer's and the node's may be three different ones;
- Unix time in seconds (with or without a fraction), milliseconds, microseconds or nanoseconds, told apart by magnitude;
- relative to now: `now`, `15m`, `-15m` and `now-15m` (all three: fifteen minutes ago), `now+5m`.

A duration is `1h30m`, `2d`, `1.5h`, `500ms`: units w d h m s ms, the larger first, each at most once.
Nothing here reads a clock: the caller passes `now_ns`, once for both ends of a range.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from profiler.errors import BadInput

SECOND_NS = 1_000_000_000
MAX_TIME_NS = 2**63 - 1  # the year 2262: what a signed 64-bit column holds
DEFAULT_LAST = "15m"

_UNIT_NS = {
    "w": 7 * 86_400 * SECOND_NS,
    "d": 86_400 * SECOND_NS,
    "h": 3_600 * SECOND_NS,
    "m": 60 * SECOND_NS,
    "s": SECOND_NS,
    "ms": 1_000_000,
}
# "m" must not take the number of "ms", hence the look-ahead.
_DURATION = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit}(?![a-z]))?" for unit in _UNIT_NS))
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# (smallest number, its unit in ns): 1e8 s is the year 1973, 1e11 s the year 5138, so every magnitude has one meaning.
_NUMBER_UNITS_NS = ((10**17, 1), (10**14, 1_000), (10**11, 1_000_000), (10**8, SECOND_NS))
_MAX_LENGTH = 64
_TIME_FORMS = "write RFC 3339 such as 2026-03-01T12:00:00Z, Unix seconds, or a time before now such as 15m"


@dataclass(frozen=True)
class TimeRange:
    """Half open: `since_ns` belongs to it, `until_ns` does not. Never empty."""

    since_ns: int
    until_ns: int


def parse_duration(text: str) -> int:
    """Return nanoseconds of a duration such as `1h30m`; `BadInput` for anything else and beyond 292 years."""
    match = _DURATION.fullmatch(text.strip()) if len(text) <= _MAX_LENGTH else None
    if match is None or not any(match.groups()):
        raise BadInput(f"not a duration: {_shown(text)}; write numbers with units w d h m s ms, such as 90s or 1h30m")
    parts = zip(match.groups(), _UNIT_NS.values(), strict=True)
    duration_ns = int(sum(Decimal(number) * unit_ns for number, unit_ns in parts if number))
    if duration_ns > MAX_TIME_NS:
        raise BadInput(f"duration too long: {_shown(text)}; the longest is 292 years")
    return duration_ns


def parse_time(text: str, now_ns: int) -> int:
    """Return the Unix ns that `text` means at `now_ns`; `BadInput` for anything else and outside 1970 to 2262."""
    stripped = text.strip()
    if not stripped or len(stripped) > _MAX_LENGTH:
        raise BadInput(f"not a time: {_shown(text)}; {_TIME_FORMS}")
    if "0" <= stripped[0] <= "9" and (match := _RFC3339.fullmatch(stripped)):
        time_ns = _rfc3339_ns(match, text)
    elif _NUMBER.fullmatch(stripped):
        time_ns = _number_ns(stripped, text)
    else:
        time_ns = _relative_ns(stripped, text, now_ns)
    if not 0 <= time_ns <= MAX_TIME_NS:
        raise BadInput(f"time out of range: {_shown(text)}; it must lie between the years 1970 and 2262")
    return time_ns


def parse_range(
    since: str | None = None,
    until: str | None = None,
    last: str | None = None,
    *,
    now_ns: int,
    default_last: str = DEFAULT_LAST,
) -> TimeRange:
    """Combine `--since`, `--until` and `--last` into one range.

    `until` defaults to now. The start is `since`, or `last` (else `default_last`) before the end; both at once are
    refused. An empty or backward range is refused, naming both ends.
    """
    if since is not None and last is not None:
        raise BadInput(f"both since {_shown(since)} and last {_shown(last)} set the start; give one of them")
    until_ns = now_ns if until is None else parse_time(until, now_ns)
    if since is not None:
        since_ns = parse_time(since, now_ns)
    else:
        since_ns = max(0, until_ns - parse_duration(default_last if last is None else last))
    if since_ns >= until_ns:
        raise BadInput(
            f"empty time range: it starts {format_time(since_ns)} and ends {format_time(until_ns)}; "
            "the start must come before the end"
        )
    return TimeRange(since_ns, until_ns)


def format_time(time_ns: int) -> str:
    """Return RFC 3339 in UTC, with as many digits of the fraction as are needed to parse back to `time_ns`."""
    second, fraction_ns = divmod(time_ns, SECOND_NS)
    fraction = f".{fraction_ns:09d}".rstrip("0") if fraction_ns else ""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _rfc3339_ns(match: re.Match[str], text: str) -> int:
    date, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{offset.upper().replace('Z', '+00:00')}")
    except ValueError as error:
        raise BadInput(f"no such time: {_shown(text)}: {error}") from error
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * SECOND_NS + int((fraction or "").ljust(9, "0"))  # datetime itself would cut at microseconds


def _number_ns(number: str, text: str) -> int:
    value = Decimal(number)
    for smallest, unit_ns in _NUMBER_UNITS_NS:
        if value >= smallest:
            return int(value * unit_ns)
    raise BadInput(f"number without a unit: {_shown(text)}; write {number}m for minutes before now, or Unix seconds")


def _relative_ns(stripped: str, text: str, now_ns: int) -> int:
    if stripped == "now":
        return now_ns
    is_future = stripped.startswith("now+")
    try:
        distance_ns = parse_duration(re.sub(r"\A(?:now[+-]|-)", "", stripped))
    except BadInput as error:
        hint = "an RFC 3339 time ends in Z or an offset such as +01:00" if ":" in stripped else _TIME_FORMS
        raise BadInput(f"not a time: {_shown(text)}; {hint}") from error
    return now_ns + distance_ns if is_future else now_ns - distance_ns


def _shown(text: str) -> str:
    """Quote foreign text on one short line."""
    return repr(text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "...")
