"""The commands as a user runs them: record, flame, status, check, and an agent that is killed."""

import csv
import io
import json
import os
import re
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler.hierarchy import detect_hierarchy
from profiler.saved_windows import replay
from profiler.window import LOSSES
from storage.store import Store

WORKLOAD = "record-spin"
# What programs may rely on; further keys may come.
STATUS_KEYS = {
    "node",
    "agent",
    "last_window",
    "last_window_age_s",
    "windows",
    "gap_s",
    "samples",
    "coverage",
    "sample_hz",
    "sample_event",
    "cgroup_mode",
    "stack_quality",
    "losses",
    "bad_segments",
    "agent_cpu_pct",
    "agent_rss_bytes",
    "bpf_bytes",
}


def folded(text):
    """Folded lines as (frames, weight), outermost frame first."""
    lines = [line.rpartition(" ") for line in text.splitlines()]
    return [(tuple(frames.split(";")), int(weight)) for frames, _, weight in lines]


def share_of(function, stacks):
    return sum(weight for frames, weight in stacks if function in frames) / sum(weight for _, weight in stacks)


def windows_of(store):
    """(start, end) of every complete window, in us since 1970, oldest first."""
    store = Store.open(store)
    rows = [
        pq.read_table(path, columns=["ts", "end"]).to_pylist()[0]
        for node in store.node_names()
        for path in store.window_segments(node)
    ]
    return [tuple(round(row[name].timestamp() * 1e6) for name in ("ts", "end")) for row in rows]


def test_record_and_flame_name_the_hot_function(machine, programs, tmp_path):
    store = tmp_path / "store"
    recorded = machine.coprof("record", "--duration", 3, "-o", store, "--", programs["spin"])
    assert recorded.returncode == 0, recorded.stderr
    assert re.search(rf"^{WORKLOAD} +\w+ +[\d.]+ +[\d.]+% +\d+$", recorded.stdout, re.M)
    assert f"see them: coprof flame --store {store}" in recorded.stdout
    assert "spin was still running and was ended" in recorded.stderr
    assert not machine.pids()
    flame = ("flame", "--store", store, "--workload", WORKLOAD)
    answer = machine.coprof(*flame, "--format", "folded")
    assert answer.returncode == 0
    assert machine.without_losses(answer.stderr) == ""
    stacks = folded(answer.stdout)
    assert share_of("grind", stacks) > 0.9
    assert {frames[0] for frames, _ in stacks} == {WORKLOAD}
    assert "main;serve;grind " in answer.stdout  # below them the C library's start, named where it has symbols
    assert 0.5e9 < sum(weight for _, weight in stacks) < 3.5e9
    samples = folded(machine.coprof(*flame, "--unit", "samples").stdout)
    assert [(frames, weight // (10**9 // 49)) for frames, weight in stacks] == samples


def test_the_default_recording_and_the_one_before(machine, programs, tmp_path):
    record = ("record", "--", programs["spin"], 0.5)
    assert machine.coprof(*record, cwd=tmp_path).returncode == 0
    first = windows_of(tmp_path / "coprof.store")
    assert machine.coprof(*record, cwd=tmp_path).returncode == 0
    assert windows_of(tmp_path / "coprof.store.old") == first
    assert windows_of(tmp_path / "coprof.store")[0] > first[-1]
    answer = machine.coprof("flame", cwd=tmp_path)
    assert answer.returncode == 0
    assert "grind" in answer.stdout
    assert "reading the recording coprof.store" in answer.stderr


def test_a_recording_beside_another_is_refused(machine, tmp_path):
    first = machine.start_coprof("record", "--duration", 60, cwd=tmp_path)
    machine.wait_until(lambda: list(tmp_path.glob("coprof.store/l0/*/_writer.lock")), "the recording")
    second = machine.coprof("record", "--duration", 1, cwd=tmp_path)
    assert second.returncode == 1
    assert second.stderr == "coprof: another recording writes to coprof.store: name another store with -o\n"
    first.terminate()
    first.communicate(timeout=20)
    assert first.returncode == 0
    assert windows_of(tmp_path / "coprof.store")
    assert not (tmp_path / "coprof.store.old").exists()


def test_a_killed_recording_takes_its_command_along(machine, programs, tmp_path):
    recording = machine.start_coprof("record", "-o", tmp_path / "store", "--", programs["spin"])
    machine.wait_until(lambda: str(programs["spin"]) in commands_of(machine), "the command to run")
    recording.kill()
    machine.wait_until(lambda: not machine.pids(), "the command to end", timeout_s=2)


@pytest.mark.parametrize(("command", "option", "code"), [("agent", "--store", 0), ("record", "-o", 130)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_sampling_ends_it_quietly(machine, tmp_path, command, option, code, number):
    (tmp_path / "tmp").mkdir()
    machine.environment["TMPDIR"] = str(tmp_path / "tmp")
    ended = machine.start_coprof(
        command, option, tmp_path / "store", *(["--duration", 5] if command == "record" else [])
    )
    machine.wait_until(lambda: list(tmp_path.glob("tmp/coprof-btf-*/include/vmlinux_btf.h")), "the compiler")
    time.sleep(0.3)
    for pid in machine.pids():
        if number == signal.SIGINT and os.getpgid(pid) == ended.pid:  # as Ctrl-C does
            os.kill(pid, number)
    if number != signal.SIGINT:
        ended.send_signal(number)
    assert ended.communicate(timeout=5) == ("", "")
    assert ended.returncode == code
    assert not list((tmp_path / "tmp").iterdir())
    assert not machine.pids()
    assert (tmp_path / "store").exists() == (command == "agent")


def test_an_agent_whose_store_is_removed_makes_it_again(machine, tmp_path, config):
    store = tmp_path / "store"
    agent = machine.start_coprof("agent", "--config", config, "--store", store)
    machine.wait_until(lambda: store.exists() and count_windows(store), "a window")
    shutil.rmtree(store, ignore_errors=True)
    machine.wait_until(lambda: store.exists() and count_windows(store) >= 2, "two windows after that")
    agent.terminate()
    agent.communicate(timeout=20)
    assert agent.returncode == 0
    assert machine.coprof("status", "--store", store).returncode == 0


def test_a_recording_that_cannot_begin_leaves_the_one_before(machine, programs, tmp_path):
    assert machine.coprof("record", "--duration", 0.5, cwd=tmp_path).returncode == 0
    before = windows_of(tmp_path / "coprof.store")
    for _ in range(2):
        refused = machine.coprof("record", "--duration", 1, under=[programs["without_bpf"]], cwd=tmp_path)
        assert refused.returncode == 1
    assert windows_of(tmp_path / "coprof.store") == before


def test_record_ends_with_its_command_and_saves_windows(machine, programs, tmp_path, config):
    began_s = time.monotonic()
    record = ("record", "--config", config, "-o", tmp_path / "store", "--windows", tmp_path / "windows")
    recorded = machine.coprof(*record, "--", programs["spin"], 1.5)
    assert recorded.returncode == 0
    assert time.monotonic() - began_s < 20
    assert "spin ended with exit code 0" in recorded.stderr
    windows = list(replay([tmp_path / "windows"]))
    assert [(window.start_ns // 1000, window.end_ns // 1000) for window in windows] == windows_of(tmp_path / "store")
    assert len(windows) >= 2
    assert sum(len(window.samples) for window in windows) == sum(window.count("samples") for window in windows) > 49


def test_record_ends_all_that_its_command_started(machine, programs, tmp_path):
    script = f"{programs['spin']} & {programs['spin']} & wait"
    recorded = machine.coprof("record", "--duration", 0.5, "-o", tmp_path / "store", "--", "sh", "-c", script)
    assert recorded.returncode == 0
    assert not machine.pids()
    assert not list(detect_hierarchy("auto").mount_point.glob("record-sh*"))


def test_record_is_ended_by_an_interrupt_and_keeps_what_it_has(machine, programs, tmp_path):
    recording = machine.start_coprof("record", "-o", tmp_path / "store", "--", programs["spin"])
    machine.wait_until(lambda: str(programs["spin"]) in commands_of(machine), "the command to run")
    time.sleep(1)
    recording.send_signal(signal.SIGINT)
    stdout, stderr = recording.communicate(timeout=20)
    assert recording.returncode == 0, stderr
    assert WORKLOAD in stdout
    assert not machine.pids()


def test_flame_writes_one_html_file(machine, recording, tmp_path):
    answer = machine.coprof("flame", "--store", recording, "--format", "html", "-o", tmp_path / "f.html")
    assert (answer.returncode, answer.stdout) == (0, "")
    page = (tmp_path / "f.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "grind" in page
    assert not re.search(r"""(?:src|href)=["']https?:""", page)


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_status_in_every_format(machine, recording, form):
    answer = machine.coprof("status", "--store", recording, "--format", form)
    assert (answer.returncode, answer.stderr) == (0, "")
    if form == "table":
        assert re.search(r"^samples +[\d,]+ at 49 Hz on ", answer.stdout, re.M)
        return
    if form == "json":
        document = json.loads(answer.stdout)
        assert document["store"] == str(recording)
        (node,) = document["nodes"]
        assert node.keys() >= STATUS_KEYS
        assert node["losses"].keys() == LOSSES.keys()
        assert sum(node["stack_quality"].values()) == pytest.approx(1, abs=0.01)
        assert 0.8 < node["coverage"] < 1.3
        assert node["bpf_bytes"] > 0
    else:
        (node,) = csv.DictReader(io.StringIO(answer.stdout))
        assert node.keys() >= (STATUS_KEYS - {"stack_quality", "losses"}) | LOSSES.keys()
    assert int(node["windows"]) >= 4
    assert int(node["samples"]) > 49


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_check_in_every_format(machine, tmp_path, config, form):
    config.write_text("[viewer]\nport = 0\n")
    answer = machine.coprof("check", "--config", config, "--store", tmp_path / "store", "--format", form)
    assert (answer.returncode, answer.stderr) == (0, "")
    readers = {"json": json.loads, "csv": lambda text: list(csv.DictReader(io.StringIO(text)))}
    if form == "table":
        assert re.search(r"^BPF programs +ok +compiled without kernel headers", answer.stdout, re.M)
        return
    rows = readers[form](answer.stdout)
    assert all(row.keys() == {"check", "state", "found"} for row in rows)
    assert {row["state"] for row in rows} <= {"ok", "limited"}
    assert len({row["check"] for row in rows}) == len(rows) > 10
    assert not (tmp_path / "store").exists()


def test_an_agent_killed_in_a_window_loses_that_window_alone(machine, programs, tmp_path, config):
    store = tmp_path / "store"
    machine.start(programs["spin"], cgroups=[machine.cgroup("spin")])
    agent = machine.start_coprof("agent", "--config", config, "--store", store)
    machine.wait_until(lambda: store.exists() and count_windows(store) >= 3, "three windows")
    time.sleep(0.5)
    killed_us = time.time_ns() // 1000
    agent.kill()
    agent.wait()
    before = windows_of(store)
    assert all(window[1] == following[0] for window, following in pairwise(before))
    assert killed_us - before[-1][1] < 1_900_000  # the open window, and the moment it takes to store one
    answer = machine.coprof("flame", "--store", store)
    assert (answer.returncode, "grind" in answer.stdout) == (0, True)
    assert "damaged" not in answer.stderr

    again = machine.start_coprof("agent", "--config", config, "--store", store)
    machine.wait_until(lambda: count_windows(store) >= len(before) + 2, "two more windows")
    again.send_signal(signal.SIGTERM)
    _, stderr = again.communicate(timeout=20)
    assert again.returncode == 0
    assert "damaged" not in stderr
    after = windows_of(store)
    assert after[: len(before)] == before
    gaps = [following[0] - window[1] for window, following in pairwise(after)]
    assert [gap > 0 for gap in gaps].count(True) == 1  # while there was no agent
    (node,) = json.loads(machine.coprof("status", "--store", store, "--format", "json").stdout)["nodes"]
    assert node["windows"] == len(after)
    assert node["gap_s"] == pytest.approx(max(gaps) / 1e6, abs=0.1)
    assert node["agent_rss_bytes"] < 150 * 2**20


def test_an_agent_ended_in_a_window_stores_it(machine, tmp_path, config):
    agent = machine.start_coprof("agent", "--config", config, "--store", tmp_path / "store")
    machine.wait_until(lambda: (tmp_path / "store").exists() and count_windows(tmp_path / "store") >= 1, "a window")
    time.sleep(0.4)
    ended_us = time.time_ns() // 1000
    agent.send_signal(signal.SIGINT)
    assert agent.wait(20) == 0
    assert abs(windows_of(tmp_path / "store")[-1][1] - ended_us) < 300_000


def test_the_agent_carries_no_compiler(machine, tmp_path, config):
    agent = machine.start_coprof("agent", "--config", config, "--store", tmp_path / "store")
    machine.wait_until(lambda: (tmp_path / "store").exists() and count_windows(tmp_path / "store") >= 1, "a window")
    maps = Path(f"/proc/{agent.pid}/maps").read_text()
    assert "libarrow" in maps
    assert not re.search("libbcc|libclang|libLLVM|flask", maps)
    assert machine.pids() == [agent.pid]


def test_a_pipe_that_is_closed_early_is_no_error(machine, recording):
    flame = machine.start_coprof("flame", "--store", recording)
    flame.stdout.close()
    flame.stdout = None
    assert machine.without_losses(flame.communicate(timeout=20)[1]) == ""
    assert flame.returncode == 0


def commands_of(machine):
    """The programs of all processes of the test."""
    programs = []
    for pid in machine.pids():
        try:
            programs.append(str(Path(f"/proc/{pid}/exe").readlink()))
        except OSError:  # gone
            continue
    return programs


def count_windows(store):
    return len(list(store.glob("l0/*/nodes/*.parquet")))
