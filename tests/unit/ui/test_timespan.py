"""Times as people write them, against times computed by hand."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import BadInput
from ui.timespan import MAX_TIME_NS, TimeRange, format_time, parse_duration, parse_range, parse_time

S = 1_000_000_000
NOW = 1_772_366_400 * S  # 2026-03-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("2026-03-01T12:00:00Z", NOW),
        ("2026-03-01t12:00:00z", NOW),
        ("2026-03-01 13:00:00+01:00", NOW),
        ("2026-03-01T06:30:00-05:30", NOW),
        ("2026-03-01T12:00:00.000000001Z", NOW + 1),
        ("2026-03-01T12:00:00.5Z", NOW + S // 2),
        ("1970-01-01T00:00:00Z", 0),
        ("1772366400", NOW),
        ("1772366400.25", NOW + S // 4),
        ("1772366400000", NOW),
        ("1772366400000001", NOW + 1_000),
        ("1772366400000000001", NOW + 1),
        ("now", NOW),
        (" now ", NOW),
        ("15m", NOW - 900 * S),
        ("-15m", NOW - 900 * S),
        ("now-15m", NOW - 900 * S),
        ("now+5m", NOW + 300 * S),
        ("1h30m", NOW - 5400 * S),
        ("2d", NOW - 172_800 * S),
        ("1w", NOW - 7 * 86_400 * S),
        ("1.5h", NOW - 5400 * S),
        ("1m500ms", NOW - 60 * S - S // 2),
    ],
)
def test_parse_time(text, expected_ns):
    assert parse_time(text, NOW) == expected_ns


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a time: ''"),
        ("yesterday", "not a time: 'yesterday'"),
        ("2026-03-01T12:00:00", "ends in Z or an offset"),
        ("2026-02-30T12:00:00Z", "no such time"),
        ("2026-03-01T25:00:00Z", "no such time"),
        ("2026-03-01", "not a time"),
        ("15", "number without a unit: '15'; write 15m"),
        ("1m1h", "not a time"),
        ("15 m", "not a time"),
        ("--15m", "not a time"),
        ("+15m", "not a time"),
        ("\u0661\u0665m", "not a time"),
        ("99999999d", "not a time"),
        ("100y", "not a time"),
        ("60w" + "0" * 80, "not a time"),
        ("9" * 60, "out of range"),
        ("3000w", "out of range"),
        ("2300-01-01T00:00:00Z", "out of range"),
        ("1969-12-31T23:59:59Z", "out of range"),
    ],
)
def test_parse_time_refuses(text, says):
    with pytest.raises(BadInput, match=says.replace("(", r"\(")) as caught:
        parse_time(text, NOW)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@given(st.integers(0, MAX_TIME_NS))
def test_a_formatted_time_parses_back(time_ns):
    assert parse_time(format_time(time_ns), NOW) == time_ns


@given(st.text(max_size=80) | st.from_regex(r"(now)?[+-]?[0-9.]{1,20}[wdhms]?[0-9T:Z-]{0,10}"))
def test_any_text_is_a_time_in_range_or_bad_input(text):
    with contextlib.suppress(BadInput):
        assert 0 <= parse_time(text, NOW) <= MAX_TIME_NS


def test_duration_units_add_up():
    assert parse_duration("1w1d1h1m1s1ms") == (7 * 86_400 + 86_400 + 3_600 + 60 + 1) * S + 1_000_000
    assert parse_duration("0s") == 0
    with pytest.raises(BadInput, match="not a duration: '5'"):
        parse_duration("5")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, TimeRange(NOW - 900 * S, NOW)),
        ({"last": "1h"}, TimeRange(NOW - 3600 * S, NOW)),
        ({"since": "1h"}, TimeRange(NOW - 3600 * S, NOW)),
        ({"since": "1h", "until": "30m"}, TimeRange(NOW - 3600 * S, NOW - 1800 * S)),
        ({"until": "30m"}, TimeRange(NOW - 2700 * S, NOW - 1800 * S)),
        ({"until": "2026-03-01T11:00:00Z", "last": "10m"}, TimeRange(NOW - 4200 * S, NOW - 3600 * S)),
        ({"default_last": "1d"}, TimeRange(NOW - 86_400 * S, NOW)),
        ({"last": "200w", "until": "1970-01-02T00:00:00Z"}, TimeRange(0, 86_400 * S)),
    ],
)
def test_ranges(arguments, expected):
    assert parse_range(**arguments, now_ns=NOW) == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"since": "1h", "last": "1h"}, "both since '1h' and last '1h'"),
        ({"since": "now"}, "starts 2026-03-01T12:00:00Z and ends 2026-03-01T12:00:00Z"),
        ({"since": "10m", "until": "20m"}, "empty time range"),
        ({"last": "0s"}, "empty time range"),
        ({"last": "now"}, "not a duration: 'now'"),
    ],
)
def test_ranges_refused(arguments, says):
    with pytest.raises(BadInput, match=says):
        parse_range(**arguments, now_ns=NOW)
