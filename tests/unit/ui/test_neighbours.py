"""`coprof neighbours`: what people and programs are shown, and what is said where nothing can be."""

import csv
import json

import pytest
from click.testing import CliRunner
from sample_windows import START_NS, WAITS, make_symbolised

from storage.rows import AgentCost
from storage.store import Store
from storage.writer import StoreWriter
from ui.cli import main
from ui.commands.neighbours import SHOWN_ROWS, _readable

KEYS = (
    *("victim", "aggressor", "cause", "delay_ns", "share", "events", "max_ns"),
    *("wait_ns", "run_ns", "p50_ns", "p95_ns", "p99_ns", "missed", "lost"),
)


@pytest.fixture
def neighbours(tmp_path):
    """Run the command on a store of one window with these accounts."""

    def run(*options, waits=WAITS, **counters):
        store = Store.open(tmp_path / "store", create=True)
        with StoreWriter(store, "node-a") as writer:
            writer.append(make_symbolised(START_NS, counters=counters, waits=waits), AgentCost())
        return CliRunner().invoke(main, ["neighbours", "--store", str(store.root), *options])

    return run


def words(line):
    return line.split()


def test_people_see_victims_with_their_split_then_pairs(neighbours):
    result = neighbours()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert words(lines[1]) == words(
        "web online 12.6 ms 100 328 us 9.44 ms 50.0 ms offline neighbours 55%, throttled 40%, self 5%"
    )
    assert lines[2] == ""
    assert words(lines[3]) == ["victim", "aggressor", "cause", "class", "delay", "share", "events", "max"]
    assert words(lines[4]) == words("web batch neighbour offline 69.0 ms 55.0% 31 9.00 ms")
    assert words(lines[5]) == words("web - throttled - 50.0 ms 39.8% 1 50.0 ms")
    assert len(lines) == 4 + 5  # batch waited too, and is not online


def test_a_chosen_victim_is_shown_whatever_its_class(neighbours):
    result = neighbours("--victim", "batch")
    assert words(result.stdout.splitlines()[-1]) == words("batch web neighbour online 8.00 ms 100.0% 8 1.00 ms")


def test_without_online_victims_all_are_shown(neighbours):
    result = neighbours(waits=[("batch", "web", "online", (1_000_000,))])
    assert "all classes are shown" in result.stderr
    assert words(result.stdout.splitlines()[1])[:2] == ["batch", "offline"]


def many_waits():
    return [("web", f"job{number:02}", "offline", (1_000_000 * (number + 1),)) for number in range(30)]


def test_the_largest_pairs_are_shown_and_the_rest_counted(neighbours):
    result = neighbours(waits=many_waits())
    shown = [words(line)[1] for line in result.stdout.splitlines()[4:]]
    assert shown == [f"job{number:02}" for number in range(29, 29 - SHOWN_ROWS, -1)]
    assert "10 smaller pairs not shown" in result.stderr


def test_all_pairs_of_a_chosen_victim_are_shown(neighbours):
    assert len(neighbours("--victim", "web", waits=many_waits()).stdout.splitlines()) == 4 + 30


def test_programs_get_every_pair_in_a_stable_form(neighbours):
    rows = json.loads(neighbours("--format", "json", missed_waits=3, lost_waits=1, lost_victims=1).stdout)
    assert [tuple(row) for row in rows] == [KEYS] * len(WAITS)
    assert rows[0] == {
        "victim": "web",
        "aggressor": "batch",
        "cause": "neighbour",
        "delay_ns": 69_000_000,
        "share": 0.54956,
        "events": 31,
        "max_ns": 9_000_000,
        "wait_ns": 125_555_000,
        "run_ns": 180_000_000,
        "p50_ns": 327_680,
        "p95_ns": 2_097_152,
        "p99_ns": 9_437_184,
        "missed": 3,
        "lost": 2,
    }
    assert [row["aggressor"] for row in rows if row["cause"] in ("idle", "throttled")] == [None, None]
    assert "batch" in {row["victim"] for row in rows}


def test_csv_has_the_same_columns(neighbours):
    rows = list(csv.DictReader(neighbours("--format", "csv").stdout.splitlines()))
    assert tuple(rows[0]) == KEYS
    assert len(rows) == len(WAITS)


def test_losses_are_said_beside_the_answer(neighbours):
    assert "3 switches to a task that was not seen to wait" in neighbours(missed_waits=3).stderr


def test_an_unknown_victim_is_refused_in_one_line(neighbours):
    result = neighbours("--victim", "wbe")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "coprof: unknown victim 'wbe' in this range; known: web, batch, kthreads\n"


@pytest.mark.parametrize("form, shown", [("table", ""), ("json", "[]\n"), ("csv", "")])
def test_an_empty_range_cannot_be_told(neighbours, form, shown):
    result = neighbours("--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z", "--format", form)
    assert (result.exit_code, result.stdout) == (3, shown)
    assert result.stderr.startswith("coprof: no windows from 2020-01-01T00:00:00Z to 2020-01-02T00:00:00Z; widen")
    assert len(result.stderr.splitlines()) == 1


def test_windows_without_accounts_cannot_be_told(neighbours):
    result = neighbours(waits=None)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no run-queue accounting from" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_pair_that_never_met_cannot_be_told(neighbours):
    result = neighbours("--victim", "kthreads", "--aggressor", "batch")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no such waits" in result.stderr


@pytest.mark.parametrize(
    "ns, shown",
    [
        *[(None, "-"), (0, "0 ns"), (999, "999 ns"), (1_024, "1.02 us"), (45_600, "45.6 us"), (9_437_184, "9.44 ms")],
        *[(999_999, "1.00 ms"), (123_000_000_000, "123 s"), (4_567_000_000_000, "4,567 s")],
    ],
)
def test_durations_are_readable(ns, shown):
    assert _readable(ns) == shown
