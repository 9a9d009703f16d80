"""The benchmark of the agent's cost still runs, finds every figure, and leaves nothing behind. Needs root."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from profiler.hierarchy import detect_hierarchy

OVERHEAD = Path(__file__).parents[2] / "benchmarks" / "overhead.py"
COST = ("CPU in all", "CPU in user space", "CPU in system calls", "CPU until steady", "RSS, largest", "PSS, largest")


def leftovers():
    """Cgroups of loads, and folders of runs."""
    mount_point = detect_hierarchy("auto").mount_point
    cgroups = [group for name in ("deepcalls", "python3") for group in mount_point.glob(f"record-{name}*")]
    return {*cgroups, *Path(tempfile.gettempdir()).glob("coprof-bench-*")}


@pytest.fixture(scope="module")
def report():
    before = leftovers()
    command = [sys.executable, OVERHEAD, "--short", "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=120)
    assert not leftovers() - before
    return json.loads(done.stdout)


def figures(report, tool):
    return {result["figure"]: result["median"] for result in report["results"] if result["tool"] == tool}


def test_the_agent_has_all_its_figures(report):
    found = figures(report, "coprof")
    assert set(COST) <= set(found)
    assert 0 < found["CPU in all"] < 50
    assert 20 < found["PSS, largest"] <= found["RSS, largest"] < 500
    assert 100 < found["BPF memory"] < 16_384
    assert 100 < found["BPF program"] < 1_000_000


def test_the_agent_takes_the_samples_that_busy_cpus_call_for(report):
    found = figures(report, "coprof")
    assert found["samples expected"] > 49, "the loads keep more than one CPU busy"
    assert 0.8 < found["samples"] / found["samples expected"] < 1.25


def test_a_peer_is_measured_or_named(report):
    for tool in ("perf record", "bcc profile"):
        is_named = any(note.startswith(f"{tool}: not measured: ") for note in report["not_measured"])
        assert is_named or set(COST) <= set(figures(report, tool))


def test_every_figure_says_its_unit_and_scenario(report):
    assert "deepcalls" in report["scenario"]
    assert all(result["unit"] and result["hz"] == 49 for result in report["results"])
