"""Run-queue accounting on this kernel: who waited, why and behind whom, held against the kernel's own counts."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from profiler.hierarchy import detect_hierarchy
from profiler.window import CAUSES, NEIGHBOURS, WAIT_BUCKETS, wait_bucket_bounds_ns

RUN_S = 3
PINNED = ("taskset", "-c", "0")


@pytest.fixture
def cgroup_mode():
    """The hierarchy that identifies cgroups; a test may ask for another."""
    return "auto"


@pytest.fixture
def observe(sampling, cgroup_mode):
    """Run a situation under a sampler: it starts processes, this waits and reads their schedstat, then ends them."""

    def observe(start, during=lambda processes: time.sleep(RUN_S)):
        with sampling(hz=49, cgroup_mode=cgroup_mode) as sampler:
            assert sampler.without_accounting == ""
            processes = start()
            during(processes)
            schedstats = [read_schedstat(process.pid) for process in processes]
            for process in processes:
                process.kill()
                process.wait()
            sampler.stop()
            return Observed(list(sampler), schedstats)

    return observe


class Observed:
    """Windows of a situation, and (run, wait) of its processes by the kernel's own count."""

    def __init__(self, windows, schedstats):
        self.windows = windows
        self.schedstats = schedstats

    def delay(self, cgroup):
        """Sums of a cgroup's rows: run, wait, waits by cause, number of waits."""
        run_ns, wait_ns, causes, waits = 0, 0, np.zeros(len(CAUSES), np.int64), 0
        for window in self.windows:
            for row in window.delays:
                if is_cgroup(window.cgroups[row["cgroup"]], cgroup):
                    run_ns, wait_ns = run_ns + int(row["run_ns"]), wait_ns + int(row["wait_ns"])
                    causes += row["cause_ns"]
                    assert row["buckets"].sum() == row["kind_count"].sum()
                    waits += int(row["kind_count"].sum())
        return run_ns, wait_ns, dict(zip(CAUSES, causes.tolist(), strict=True)), waits

    def blame(self, victim):
        """Delay of a cgroup by (path of the aggressor or None, cause)."""
        found = {}
        for window in self.windows:
            for row in window.interference:
                if is_cgroup(window.cgroups[row["victim"]], victim):
                    aggressor = window.cgroups[row["aggressor"]].path if row["aggressor"] >= 0 else None
                    key = (aggressor, CAUSES[row["cause"]])
                    found[key] = found.get(key, 0) + int(row["delay_ns"])
        return found


def is_cgroup(life, path):
    return life.path.endswith(f"/{path.name}")


def read_schedstat(pid):
    run_ns, wait_ns, _ = map(int, Path(f"/proc/{pid}/schedstat").read_text().split())
    return run_ns, wait_ns


def throttled_ns(cgroup):
    fields = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
    return int(fields["throttled_time"])


def neighbour_ns(causes):
    return sum(causes[cause] for cause in NEIGHBOURS)


def test_a_hog_is_named_and_all_of_the_wait_is_accounted_for(machine, programs, observe):
    victim, hog = machine.cgroup("victim"), machine.cgroup("hog")
    seen = observe(lambda: [machine.start(*PINNED, programs["spin"], cgroups=[group]) for group in (victim, hog)])
    run_ns, wait_ns, causes, waits = seen.delay(victim)
    kernel_run_ns, kernel_wait_ns = seen.schedstats[0]
    assert run_ns == pytest.approx(kernel_run_ns, rel=0.02)
    assert wait_ns == pytest.approx(kernel_wait_ns, rel=0.02)
    assert sum(causes.values()) == pytest.approx(wait_ns, rel=0.001)
    assert causes["self"] < 0.02 * wait_ns and causes["throttled"] == 0
    blame = seen.blame(victim)
    (hog_path,) = {path for path, _ in blame if path and path.endswith(hog.name)}
    assert blame[hog_path, "online"] > 0.8 * wait_ns, blame
    assert sum(blame.values()) == pytest.approx(wait_ns, rel=0.03)
    assert waits > 50


@pytest.mark.parametrize("cgroup_mode", ["v2"])
def test_cgroups_of_the_unified_hierarchy_are_told_apart(machine, programs, observe):
    unified = detect_hierarchy("v2").mount_point
    victim, hog = machine.cgroup("victim", unified), machine.cgroup("hog", unified)
    seen = observe(lambda: [machine.start(*PINNED, programs["spin"], cgroups=[group]) for group in (victim, hog)])
    _, wait_ns, causes, _ = seen.delay(victim)
    assert wait_ns == pytest.approx(seen.schedstats[0][1], rel=0.02)
    assert causes["self"] < 0.02 * wait_ns
    (hog_path,) = {path for path, _ in seen.blame(victim) if path and path.endswith(hog.name)}
    assert seen.blame(victim)[hog_path, "online"] > 0.8 * wait_ns


@pytest.mark.parametrize("is_on_parent", [False, True])
def test_a_quota_is_nobodys_fault(machine, programs, observe, is_on_parent):
    parent = machine.cgroup("quota")
    group = parent
    if is_on_parent:
        group = parent / "inner"
        group.mkdir()
    (parent / "cpu.cfs_quota_us").write_text("20000")
    seen = observe(lambda: [machine.start("taskset", "-c", "1", programs["spin"], cgroups=[group])])
    _, wait_ns, causes, _ = seen.delay(group)
    assert sum(causes.values()) == pytest.approx(wait_ns, rel=0.001)
    assert causes["throttled"] == pytest.approx(throttled_ns(parent), rel=0.05)
    assert wait_ns == pytest.approx(seen.schedstats[0][1], rel=0.05)
    assert seen.blame(group)[None, "throttled"] == causes["throttled"]
    if is_on_parent:
        machine.wait_until(lambda: not (group / "cgroup.procs").read_text(), "an empty cgroup")
        group.rmdir()


def test_own_threads_are_no_neighbours(machine, programs, observe):
    group = machine.cgroup("threads")
    seen = observe(lambda: [machine.start(*PINNED, programs["spin"], 0, 4, cgroups=[group])])
    _, wait_ns, causes, _ = seen.delay(group)
    assert causes["self"] > 0.85 * wait_ns
    assert sum(causes.values()) == pytest.approx(wait_ns, rel=0.001)


def test_a_real_time_task_is_the_kernels_cause(machine, programs, observe):
    victim, spinner = machine.cgroup("victim"), machine.cgroup("spinner")
    (spinner / "cpu.rt_runtime_us").write_text("300000")
    commands = [(PINNED, victim), ((*PINNED, "chrt", "-f", "10"), spinner)]
    seen = observe(lambda: [machine.start(*how, programs["spin"], cgroups=[group]) for how, group in commands])
    _, wait_ns, causes, _ = seen.delay(victim)
    assert causes["kernel"] > 0.5 * wait_ns, causes
    assert sum(causes.values()) == pytest.approx(wait_ns, rel=0.001)


def test_moving_between_cpus_loses_nothing(machine, programs, observe):
    victim, hogs = machine.cgroup("victim"), machine.cgroup("hogs")

    def start():
        places = [("taskset", "-c", "0,1"), PINNED, ("taskset", "-c", "1")]
        groups = [victim, hogs, hogs]
        return [
            machine.start(*how, programs["spin"], cgroups=[group]) for how, group in zip(places, groups, strict=True)
        ]

    def move(processes):
        end_s = time.monotonic() + RUN_S
        while time.monotonic() < end_s:
            for cpu in (0, 1):
                os.sched_setaffinity(processes[0].pid, {cpu})
                time.sleep(0.01)

    seen = observe(start, move)
    run_ns, wait_ns, causes, _ = seen.delay(victim)
    assert run_ns == pytest.approx(seen.schedstats[0][0], rel=0.03)
    assert wait_ns == pytest.approx(seen.schedstats[0][1], rel=0.03)
    assert sum(causes.values()) == pytest.approx(wait_ns, rel=0.001)
    assert neighbour_ns(causes) > 0.7 * wait_ns


def test_cgroups_that_come_and_go_give_their_slots_back(machine, sampling):
    with sampling(hz=49, window_s=1) as sampler:
        mount_point = machine.cgroup("churn")
        for number in range(120):
            group = mount_point / f"short-{number}"
            group.mkdir()
            machine.run("sh", "-c", f"echo $$ >{group}/cgroup.procs && exec true")
            group.rmdir()
        sampler.stop()
        windows = list(sampler)
    assert not sum(window.count("slots_full") for window in windows)
    named = {cgroup.path.rsplit("/", 1)[-1] for window in windows for cgroup in window.cgroups}
    assert len({name for name in named if name.startswith("short-")}) >= 115, "each keeps its name"


def test_the_histogram_has_the_bounds_that_it_says():
    bounds_ns = wait_bucket_bounds_ns()
    assert len(bounds_ns) == WAIT_BUCKETS + 1
    assert (np.diff(bounds_ns)[1:] <= 0.125 * bounds_ns[1:-1]).all()
    assert bounds_ns[1] == 1024 and bounds_ns[-1] > 100e9
