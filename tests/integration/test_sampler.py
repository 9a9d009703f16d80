"""Windows of the real kernel: whose samples, of which code, how many, and what was lost.

Needs root, BPF, BTF and both kinds of cgroup hierarchy. Other work on the machine does no harm.
"""

import gc
import os
import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from profiler import layout
from profiler.accounting import TRACEPOINTS
from profiler.hierarchy import detect_hierarchy, read_mounts
from profiler.loader import possible_cpus
from profiler.perf_events import attach_sampler, online_cpus
from profiler.rings import SampleRings
from profiler.sampler import load_sampling
from profiler.saved_windows import FILE_SUFFIX, replay, save
from profiler.window import UserEnd, Window, merge
from symbolizer.symbolised import SymbolisedWindow
from symbolizer.symbolizer import Symbolizer

HOT_PATH = ("grind", "serve", "main")
ALL_COUNTED = ("lost_ring_full", "lost_stack_full", "stack_collisions", "stack_table_full", "cgroup_events_lost")


@dataclass
class Scene:
    """What a capture saw, and what it should have seen."""

    window: Window
    symbolised: SymbolisedWindow
    replayed: SymbolisedWindow  # the same, saved and loaded again before its symbols were read
    paths: dict[str, str]  # cgroup paths inside the hierarchy
    pids: dict[str, int]
    cpu_ns: dict[str, int]  # what the kernel accounted to the cgroups meanwhile

    def of_cgroup(self, name):
        """Which samples are of the cgroup."""
        rows = [row for row, cgroup in enumerate(self.window.cgroups) if cgroup.path == self.paths[name]]
        return np.isin(self.window.samples["cgroup"], rows)

    def of_leaf(self, call_paths, function):
        """Which samples were taken while `function` ran in user space at the end of the stack."""
        samples = self.window.samples
        chosen = np.zeros(len(samples), dtype=bool)
        for stack in np.unique(samples["stack"]).tolist():
            is_stack = samples["stack"] == stack
            (path,) = call_paths(self.symbolised, is_stack)
            kernel_depth = self.window.stacks.kernel_depth[stack]
            chosen |= is_stack & (path[kernel_depth : kernel_depth + 1] == (function,))
        return chosen

    def processes_of(self, is_chosen):
        """(tgid, exec id) of the processes of these samples."""
        rows = np.unique(self.window.samples["process"][is_chosen])
        return {tuple(row) for row in self.window.processes[rows][["tgid", "exec_id"]].tolist()}


@pytest.fixture(scope="module", params=["auto", "v2"])
def mode(request):
    return request.param


def cpuacct_mount():
    mounts = read_mounts(Path("/proc/self/mountinfo"))
    return next(mount.mount_point for mount in mounts if mount.filesystem == "cgroup" and "cpuacct" in mount.options)


class Group:
    """A cgroup in the hierarchy that gives the identity, and one where the kernel accounts its CPU time."""

    def __init__(self, machine, hierarchy, name):
        self.identity = machine.cgroup(name, hierarchy.mount_point)
        self.path = f"/{self.identity.relative_to(hierarchy.mount_point)}"
        is_v2 = hierarchy.mode == "v2"
        same = is_v2 or cpuacct_mount() == hierarchy.mount_point
        self.accounting = self.identity if same else machine.cgroup(name, cpuacct_mount())

    @property
    def both(self):
        return {self.identity, self.accounting}

    def used_ns(self):
        if (file := self.accounting / "cpuacct.usage").exists():
            return int(file.read_text())
        fields = dict(line.split() for line in (self.accounting / "cpu.stat").read_text().splitlines())
        return int(fields["usage_usec"]) * 1000


def close_scene(sampler, groups, processes, used_before_ns):
    """Stop sampling, then make the scene of what was captured, while the programs' files are still at hand."""
    used_ns = {name: group.used_ns() - used_before_ns[name] for name, group in groups.items()}
    sampler.stop()
    window = merge(sampler)
    symbolised = Symbolizer().symbolise(window)
    with TemporaryDirectory() as folder:
        save(window, Path(folder) / f"{window.start_ns}{FILE_SUFFIX}")
        (loaded,) = replay([Path(folder)])
    replayed = Symbolizer().symbolise(loaded)
    paths = {name: group.path for name, group in groups.items()}
    pids = {name: process.pid for name, process in processes.items()}
    return Scene(window, symbolised, replayed, paths, pids, used_ns)


@pytest.fixture(scope="module")
def busy(module_machine, programs, sampling, mode):
    """Five seconds of one thread in `spin`, two threads in `threads` and one in system calls, on all CPUs."""
    hierarchy = detect_hierarchy(mode)
    groups = {name: Group(module_machine, hierarchy, f"{name}-{mode}") for name in ("spin", "threads", "syscalls")}
    commands = {
        "spin": (programs["spin"],),
        "threads": (programs["spin"], 0, 2),
        "syscalls": (programs["syscalls"],),
    }
    processes = {name: module_machine.start(*commands[name], cgroups=groups[name].both) for name in groups}
    with sampling(cgroup_mode=mode) as sampler:
        before_ns = {name: group.used_ns() for name, group in groups.items()}
        time.sleep(5)
        scene = close_scene(sampler, groups, processes, before_ns)
    for process in processes.values():
        os.killpg(process.pid, signal.SIGKILL)
    return scene


@pytest.fixture(scope="module")
def lives(module_machine, programs, sampling, mode):
    """Processes and cgroups that come and go: a fork and an exec, a burst of short processes, a short cgroup."""
    hierarchy = detect_hierarchy(mode)
    groups = {name: Group(module_machine, hierarchy, f"{name}-{mode}") for name in ("lives", "burst")}
    with sampling(cgroup_mode=mode) as sampler:
        groups["short"] = Group(module_machine, hierarchy, f"short-{mode}")
        short = module_machine.start(programs["spin"], 0.3, cgroups=groups["short"].both)
        assert short.wait(10) == 0
        before_ns = {name: group.used_ns() for name, group in groups.items()}
        groups["short"].identity.rmdir()
        processes = {
            name: module_machine.start(programs[name], cgroups=groups[name].both) for name in ("lives", "burst")
        }
        for process in processes.values():
            assert process.wait(30) == 0
        groups["short"].accounting.mkdir(exist_ok=True)
        return close_scene(sampler, groups, {"short": short, **processes}, before_ns)


def test_a_program_is_found_with_its_cgroup_process_and_thread(busy):
    samples = busy.window.samples[busy.of_cgroup("spin")]
    pid = busy.pids["spin"]
    assert set(samples["comm"].tolist()) == {b"spin"}
    assert set(samples["tid"].tolist()) == {pid}
    assert {tgid for tgid, _ in busy.processes_of(busy.of_cgroup("spin"))} == {pid}
    assert set(samples["cpu"].tolist()) <= online_cpus()


def test_a_hot_function_is_the_leaf_with_its_callers(busy, call_paths):
    paths = call_paths(busy.symbolised, busy.of_cgroup("spin"))
    user_paths = Counter()
    for path, count in paths.items():
        start = path.index("grind") if "grind" in path else 0
        user_paths[path[start : start + 3]] += count
    assert user_paths[HOT_PATH] > 0.95 * paths.total()


@pytest.mark.parametrize("name", ["spin", "threads", "syscalls"])
def test_the_weight_is_what_the_kernel_accounts(busy, name):
    weight_ns = int(busy.window.samples["weight_ns"][busy.of_cgroup(name)].sum())
    assert busy.cpu_ns[name] > 1e9
    assert weight_ns == pytest.approx(busy.cpu_ns[name], rel=0.15)


def test_all_samples_together_are_what_the_kernel_accounts(busy):
    window = busy.window
    assert window.count("samples") == len(window.samples)
    assert len(window.samples) == pytest.approx(window.count("expected_samples"), rel=0.1)
    assert {name: window.count(name) for name in ALL_COUNTED} == dict.fromkeys(ALL_COUNTED, 0)


def test_two_threads_of_a_process_have_ids_of_their_own(busy, call_paths):
    samples = busy.window.samples
    of_main = samples["tid"] == busy.pids["threads"]
    of_other = busy.of_cgroup("threads") & ~of_main
    assert len(set(samples["tid"][of_other].tolist())) == 1
    assert len(busy.processes_of(of_main | of_other)) == 1
    for chosen, function, stranger in ((of_main, "grind", "assist"), (of_other, "assist", "grind")):
        functions = Counter(name for path in call_paths(busy.symbolised, chosen) for name in path)
        assert functions[function] and not functions[stranger]


def test_system_calls_show_kernel_frames_above_their_caller(busy, call_paths):
    chosen = busy.of_cgroup("syscalls")
    stacks = busy.window.samples["stack"][chosen]
    in_kernel = busy.window.stacks.kernel_depth[stacks] > 0
    assert in_kernel.mean() > 0.9
    paths = call_paths(busy.symbolised, chosen)
    through_read = sum(count for path, count in paths.items() if "vfs_read" in path and "main" in path)
    assert through_read > 0.9 * paths.total()
    for path in paths:
        if "vfs_read" in path and "main" in path:
            assert path.index("vfs_read") < path.index("main")  # `read` itself keeps no frame, which hides its caller


def test_a_saved_window_replays_to_the_same_frames(busy):
    replayed = busy.replayed.window
    assert (replayed.node, replayed.cgroups) == (busy.window.node, busy.window.cgroups)
    assert (replayed.builds, replayed.counters) == (busy.window.builds, busy.window.counters)
    np.testing.assert_array_equal(replayed.samples, busy.window.samples)
    np.testing.assert_array_equal(busy.replayed.stack_ids, busy.symbolised.stack_ids)
    assert busy.replayed.frames.sort_by("frame_id") == busy.symbolised.frames.sort_by("frame_id")


def test_a_cgroup_that_came_and_went_within_a_window_keeps_its_name(lives, call_paths):
    chosen = lives.of_cgroup("short")
    assert 0.3 * 199 * 0.3 < chosen.sum() < 0.3 * 199 * 1.5
    assert any(path[:3] == HOT_PATH for path in call_paths(lives.symbolised, chosen))
    (cgroup,) = {lives.window.cgroups[row] for row in lives.window.samples["cgroup"][chosen].tolist()}
    assert lives.window.start_ns < cgroup.start_ns < cgroup.end_ns < lives.window.end_ns
    assert lives.window.count("unnamed_cgroups") == 0


def test_a_fork_and_an_exec_keep_processes_apart(lives, call_paths):
    before = lives.processes_of(lives.of_leaf(call_paths, "before_fork"))
    child = lives.processes_of(lives.of_leaf(call_paths, "in_child"))
    after = lives.processes_of(lives.of_leaf(call_paths, "after_exec"))
    assert len(before) == len(child) == len(after) == 1
    (tgid, exec_id), (child_tgid, _), (tgid_after, exec_id_after) = *before, *child, *after
    assert tgid == tgid_after == lives.pids["lives"] != child_tgid
    assert exec_id < exec_id_after


def test_processes_gone_before_anyone_could_look_are_counted(lives, call_paths):
    chosen = lives.of_cgroup("burst")
    mapped = set(lives.window.mappings["process"].tolist())
    unread = set(lives.window.samples["process"][chosen].tolist()) - mapped
    assert 5 <= len(unread) <= 31
    assert lives.window.count("unread_mappings") >= len(unread)
    ends = lives.window.stacks.user_end[lives.window.samples["stack"][chosen]]
    assert (ends == UserEnd.FRAME_POINTER).sum() > 0.5 * chosen.sum()  # their addresses are kept all the same


def test_windows_are_anchored_to_the_wall_clock_and_follow_each_other(sampling):
    with sampling(window_s=1) as sampler:
        time.sleep(3.3)
        sampler.stop()
        before_ns, windows = time.time_ns(), list(sampler)
    assert len(windows) in (4, 5)
    for window, following in pairwise(windows):
        assert window.end_ns == following.start_ns
        assert window.end_ns % 1_000_000_000 == 0
    assert abs(windows[-1].end_ns - before_ns) < 1_000_000_000
    for window in windows:
        ts_ns = window.samples["ts_ns"]
        assert np.all(np.diff(ts_ns) >= 0)
        assert np.all((ts_ns < window.end_ns) & (ts_ns >= window.start_ns - 1_000_000))  # two clocks, read in turn


@contextmanager
def attached(loaded, hz):
    """Sample on all CPUs into the loaded program, without anybody who drains."""
    events = [attach_sampler("cpu-clock", hz, cpu, loaded.programs["on_tick"]) for cpu in sorted(online_cpus())]
    try:
        yield
    finally:
        for event in events:
            os.close(event)


@pytest.fixture
def loaded():
    loaded = load_sampling(detect_hierarchy("auto"))
    yield loaded
    loaded.close()


def test_what_a_stopped_drain_loses_is_counted_exactly(machine, programs, loaded):
    for _ in range(possible_cpus()):
        machine.start(programs["mazes"], cgroups=[machine.cgroup(f"mazes-{_}")])
    cpus = loaded.map_array("cpus", layout.coprof_cpu, possible_cpus())
    slots = loaded.map_array("samples", layout.coprof_sample, possible_cpus() * layout.SAMPLE_SLOTS)
    with attached(loaded, hz=999):
        machine.wait_until(lambda: (cpus["lost_ring_full"] > 500).all(), "full rings")
    assert (cpus["sample_head"] == layout.SAMPLE_SLOTS).all()
    np.testing.assert_array_equal(cpus["ticks"], cpus["idle_ticks"] + cpus["sample_head"] + cpus["lost_ring_full"])
    without_stack = (slots["stack_id"].reshape(len(cpus), -1) == 0).sum(axis=1)
    np.testing.assert_array_equal(cpus["lost_stack_full"], without_stack)
    assert (without_stack > 500).all()
    rings = SampleRings(loaded, possible_cpus())
    batch = rings.drain()
    assert len(batch.samples) == cpus["sample_head"].sum()
    named = set(batch.samples["stack_id"].tolist()) - {0}
    assert named == set(batch.stacks["stack_id"].tolist())
    assert len(rings.drain().samples) == 0


def test_after_a_late_drain_nothing_more_is_lost(machine, programs, loaded):
    machine.start(programs["mazes"])
    rings = SampleRings(loaded, possible_cpus())
    batches = []
    with attached(loaded, hz=999):
        machine.wait_until(lambda: rings.counters()["lost_stack_full"], "a full stack ring")
        batches.append(rings.drain())
        rings.take_counters()
        for _ in range(12):
            time.sleep(0.1)
            batches.append(rings.drain())
    assert rings.take_counters()["lost_stack_full"] == 0
    named = {stack_id for batch in batches[1:] for stack_id in batch.samples["stack_id"].tolist()} - {0}
    assert named <= {stack_id for batch in batches for stack_id in batch.stacks["stack_id"].tolist()}
    assert len(named) > 500


def test_equal_stacks_are_stored_once_a_generation_over_all_cpus(machine, programs, loaded):
    process = machine.start(programs["spin"], 0, possible_cpus() + 1, cgroups=[machine.cgroup("equal")])
    rings = SampleRings(loaded, possible_cpus())
    generations = []
    with attached(loaded, hz=999):
        for _ in range(2):
            batches = []
            for _ in range(6):
                time.sleep(0.25)
                batches.append(rings.drain())
            rings.next_generation()
            generations.append(batches)
    stored = []
    for batches in generations:
        samples, records = (
            np.concatenate([getattr(batch, name) for batch in batches]) for name in ("samples", "stacks")
        )
        samples, records = samples[samples["tgid"] == process.pid], records[records["tgid"] == process.pid]
        stored.append(set(records["stack_id"].tolist()))
        assert set(samples["cpu"].tolist()) == online_cpus()
        assert len(samples) > 500
        assert len(records) < len(samples) / 3
        # Two CPUs that meet a new stack in the same moment both store it.
        assert len(records) - len(stored[-1]) <= 0.02 * len(samples)
    assert stored[0] & stored[1]  # every generation has its own


def test_no_program_is_left_when_the_sampler_has_gone(sampling):
    with sampling() as sampler:
        ours = program_ids("self")
        assert len(ours) == 1 + 3 + len(TRACEPOINTS)  # a tick, three events of cgroups, and those of the scheduler
        sampler.stop()
    del sampler
    gc.collect()
    everywhere = set().union(*(program_ids(folder.name) for folder in Path("/proc").glob("[0-9]*")))
    assert not ours & everywhere
    assert not [link for link in descriptors() if "perf_event" in link or "bpf" in link]


def program_ids(process):
    """Ids of the BPF programs that a process holds."""
    ids = set()
    for file in Path(f"/proc/{process}/fdinfo").glob("*"):
        try:
            lines = file.read_text().splitlines()
        except OSError:  # closed meanwhile
            continue
        if not any(line.startswith("link_id") for line in lines):
            ids |= {int(line.split()[1]) for line in lines if line.startswith("prog_id")}
    return ids


def descriptors():
    links = []
    for path in Path("/proc/self/fd").glob("*"):
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:  # the descriptor that the search itself used
            continue
    return links
