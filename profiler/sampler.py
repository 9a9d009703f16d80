"""The sampler: BPF programs on every CPU, a thread that drains them, and the clock that closes windows.

Windows are anchored to the wall clock (every 10 s at :00, :10, ...); the first and the last are shorter. A sample
belongs to the window in which it was taken, by its own time stamp. When the wall clock is stepped, the open window is
closed and the next begins at the new time. Closed windows wait in a short queue; when nobody takes them, the oldest is
dropped and counted.

Kernel limits: see `profiler.loader`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import numpy.typing as npt

from profiler import layout
from profiler.accounting import Accounts, SchedAccounting, load_accounting
from profiler.capture import close_window, process_keys, uncovered_processes
from profiler.cgroups import CGROUP_EVENT, CgroupAction, CgroupTable
from profiler.cpu_time import read_busy_ns
from profiler.errors import KernelFeatureMissing
from profiler.hierarchy import Hierarchy, detect_hierarchy
from profiler.loader import Loaded, load, possible_cpus, require_bpf, sampling_defines
from profiler.mappings import MappingTable
from profiler.node import read_node
from profiler.perf_events import attach_raw_tracepoint, attach_sampler, choose_event, online_cpus
from profiler.rings import Batch, CgroupRing, SampleRings
from profiler.window import Node, Window
from profiler.workloads import WorkloadRules

LOOK_INTERVAL_S = 0.25  # short, so that the mappings of short-lived processes can still be read
MAX_LOOKS_A_DRAIN = 4
FIRST_WINDOW_NS = 3_000_000_000  # who has just started it waits for the first data
QUEUED_WINDOWS = 6
KNOWN_STACKS = 16384  # some 80 bytes each, shared by all CPUs
CLOCK_STEP_NS = 1_000_000_000
MAX_WINDOWS_BEHIND = 6  # a longer gap is a machine that slept: one window, not hundreds of empty ones
_CGROUP_EVENTS = ("mkdir", "rmdir", "rename")


@dataclass(frozen=True)
class SamplerSettings:
    """What to sample and how."""

    hz: int = 49
    event: str = "auto"
    window_s: int = 10
    node_name: str = ""  # "" takes the host's name
    cgroup_mode: str = "auto"
    agent_version: str = ""


@dataclass
class _OpenWindow:
    start_ns: int
    end_ns: int
    unix_offset_ns: int  # Unix time less monotonic time, when it began
    busy_ns: int  # of all CPUs, when it began
    samples: list[npt.NDArray[np.void]] = field(default_factory=list)  # coprof_sample, with Unix time
    batches: list[Batch] = field(default_factory=list)
    earlier: list[Batch] = field(default_factory=list)  # of the window before: samples may still name their stacks
    late_drains: int = 0

    @classmethod
    def begin(cls, start_ns: int, window_ns: int) -> _OpenWindow:
        end_ns = (start_ns // window_ns + 1) * window_ns
        return cls(start_ns, end_ns, time.time_ns() - time.monotonic_ns(), read_busy_ns())

    def now_ns(self) -> int:
        """Unix time by the wall clock as it stood when the window began: what samples are stamped with."""
        return max(time.monotonic_ns() + self.unix_offset_ns, self.start_ns + 1)

    def was_clock_stepped(self, unix_offset_ns: int) -> bool:
        return abs(unix_offset_ns - self.unix_offset_ns) > CLOCK_STEP_NS


class Sampler:
    """Samples this machine while it is entered as a context; iterating yields windows as they close.

    After `stop`, iterating yields the last, shorter window and ends. Files of sampled programs stay open until the
    context is left, so that symbols of the last window can still be read.
    """

    def __init__(self, settings: SamplerSettings, rules: WorkloadRules) -> None:
        require_bpf()
        self._window_ns = settings.window_s * 1_000_000_000
        self.hierarchy = detect_hierarchy(settings.cgroup_mode)
        facts = read_node(settings.node_name)
        self.node = Node(
            name=facts.name,
            boot_id=facts.boot_id,
            cpus=facts.cpus,
            kernel=facts.kernel,
            model=facts.model,
            agent_version=settings.agent_version,
            sample_hz=settings.hz,
            sample_event=choose_event(settings.event),
            cgroup_mode=self.hierarchy.mode,
        )
        self._cgroups = CgroupTable(self.hierarchy, rules, node_name=facts.name, boot_id=facts.boot_id)
        self._mappings = MappingTable()
        self._queue: queue.Queue[Window | BaseException | None] = queue.Queue(QUEUED_WINDOWS)
        self._dropped_windows = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._perf_events: dict[int, int] = {}  # CPU -> descriptor
        self._accounting: SchedAccounting | None = None
        self._accounting_bytes: Callable[[], int] = int
        self._gone_cgroups: list[npt.NDArray[np.uint64]] = []  # whose slots are to be taken back
        self.without_accounting = ""  # why waits are not accounted for
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Sampler:
        """Load and attach the programs and begin to sample. Raises `NoPermission` or `KernelFeatureMissing`."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._mappings.close)
            self._cgroup_events = load_cgroup_events(self.hierarchy)
            undo.callback(self._cgroup_events.close)
            self._sampling = load_sampling(self.hierarchy)
            undo.callback(self._sampling.close)
            self._cgroup_ring = CgroupRing(self._cgroup_events)
            self._rings = SampleRings(self._sampling, possible_cpus())
            for event in _CGROUP_EVENTS:  # before the scan: what is made in between is seen twice, never missed
                link = attach_raw_tracepoint(f"cgroup_{event}", self._cgroup_events.programs[f"on_cgroup_{event}"])
                undo.callback(os.close, link)
            self._cgroups.scan()
            self._start_accounting(undo)
            undo.callback(self._detach)
            self._follow_cpus()
            self._resources = undo.pop_all()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self._thread.join()
        self._resources.close()

    def _start_accounting(self, undo: contextlib.ExitStack) -> None:
        """Account for waits too; a kernel that cannot is said so and sampled all the same."""
        try:
            loaded = load_accounting(self.hierarchy)
        except KernelFeatureMissing as error:
            self.without_accounting = str(error)
            return
        undo.callback(loaded.close)
        self._accounting = SchedAccounting(loaded, possible_cpus())
        self._accounting_bytes = loaded.bpf_bytes
        for link in self._accounting.attach():
            undo.callback(os.close, link)

    def stop(self) -> None:
        """End sampling soon; may be called from a signal handler or another thread."""
        self._stopping.set()

    def __iter__(self) -> Iterator[Window]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def bpf_bytes(self) -> int:
        """Kernel memory of all maps and programs, as the kernel accounts it."""
        return self._sampling.bpf_bytes() + self._cgroup_events.bpf_bytes() + self._accounting_bytes()

    def _run(self) -> None:
        try:
            self._sample_until_stopped()
        except BaseException as error:  # noqa: BLE001 - raised again for whoever iterates, who must not wait for ever
            self._put(error)
        else:
            self._put(None)

    def _sample_until_stopped(self) -> None:
        window = _OpenWindow.begin(time.time_ns(), self._window_ns)
        window.end_ns = min(window.end_ns, window.start_ns + FIRST_WINDOW_NS)
        due_s = time.monotonic() + LOOK_INTERVAL_S
        looks_a_drain = _looks_a_drain(self.node.sample_hz)
        looks = 0
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            now_s = time.monotonic()
            if now_s - due_s > LOOK_INTERVAL_S:
                window.late_drains += 1
                due_s = now_s
            due_s += LOOK_INTERVAL_S
            looks += 1
            self._look_after_accounting()
            now_ns = time.time_ns()  # before the drain, which so brings every sample taken until then
            if looks >= looks_a_drain or now_ns >= window.end_ns or self._has_news():
                self._drain_into(window)
                window = self._close_if_over(window, now_ns)
                looks = 0
        self._detach()
        self._drain_into(window)
        self._close(window, window.now_ns())

    def _has_news(self) -> bool:
        """Tell whether there is what should not wait: it is read elsewhere while it lives, or its ring is short."""
        return self._rings.has_new_process() or self._cgroup_ring.has_events()

    def _look_after_accounting(self) -> None:
        """Take what has little room in the kernel, and tell it the service classes of cgroups that are new to it."""
        if self._accounting is None:
            return
        self._accounting.drain()
        slots = self._accounting.new_slots()
        if len(slots):
            ids = self._accounting.cgroup_ids(slots)
            lives = self._cgroups.lives(ids, np.full(len(ids), time.time_ns()))
            self._accounting.set_classes(slots, [lives.cgroups[row].service_class for row in lives.rows])

    def _take_accounts(self) -> Accounts | None:
        if self._accounting is None:
            return None
        accounts = self._accounting.take()
        self._accounting.forget(np.concatenate(self._gone_cgroups or [np.zeros(0, np.uint64)]))
        self._gone_cgroups = []
        return accounts

    def _drain_into(self, window: _OpenWindow) -> None:
        batch = self._rings.drain()
        events = _unix_events(self._cgroup_ring.drain(), window.unix_offset_ns)
        self._cgroups.observe(events)
        self._gone_cgroups.append(events["kernel_id"][events["action"] == CgroupAction.REMOVED])
        for key in process_keys(batch.samples):
            self._mappings.note(key)
        batch.samples["ts_ns"] += np.uint64(window.unix_offset_ns)
        window.samples.append(batch.samples)
        window.batches.append(batch)

    def _close_if_over(self, window: _OpenWindow, now_ns: int) -> _OpenWindow:
        unix_ns = time.time_ns()
        if window.was_clock_stepped(unix_ns - time.monotonic_ns()):
            return self._close(window, window.now_ns(), next_start_ns=unix_ns)
        if now_ns - window.end_ns > MAX_WINDOWS_BEHIND * self._window_ns:
            return self._close(window, now_ns)
        while now_ns >= window.end_ns:
            window = self._close(window, window.end_ns)
        return window

    def _close(self, window: _OpenWindow, end_ns: int, next_start_ns: int | None = None) -> _OpenWindow:
        """Queue the window as ending at `end_ns`; return the next, which gets the samples taken since.

        With `next_start_ns` the clock does not run on from one to the other: all samples stay in the window.
        """
        following = _OpenWindow.begin(next_start_ns or end_ns, self._window_ns)
        following.earlier = window.batches or window.earlier  # none when one late drain closes several windows
        samples = np.concatenate(window.samples or [np.zeros(0, layout.coprof_sample)])
        is_inside = samples["ts_ns"] < end_ns if next_start_ns is None else np.ones(len(samples), dtype=bool)
        following.samples.append(samples[~is_inside])
        self._rings.next_generation()
        for key in uncovered_processes(window.batches, self._mappings):
            self._mappings.read(key)
        counters = {
            **self._rings.take_counters(),
            "expected_samples": (following.busy_ns - window.busy_ns) * self.node.sample_hz // 1_000_000_000,
            "late_drains": window.late_drains,
            "cgroup_events_lost": self._cgroup_ring.take_lost(),
            "dropped_windows": self._dropped_windows,
        }
        self._dropped_windows = 0
        batches = window.earlier + window.batches
        span_ns = (window.start_ns, end_ns)
        tables = (self._cgroups, self._mappings)
        accounts = self._take_accounts()
        self._put(close_window(span_ns, self.node, samples[is_inside], batches, *tables, counters, accounts))
        self._mappings.forget_unread()
        self._follow_cpus()
        return following

    def _follow_cpus(self) -> None:
        if self._stopping.is_set():
            return
        online = online_cpus()
        for cpu in sorted(online - self._perf_events.keys()):
            program = self._sampling.programs["on_tick"]
            event = attach_sampler(self.node.sample_event, self.node.sample_hz, cpu, program)
            if event is not None:
                self._perf_events[cpu] = event
        for cpu in self._perf_events.keys() - online:
            os.close(self._perf_events.pop(cpu))

    def _detach(self) -> None:
        while self._perf_events:
            os.close(self._perf_events.popitem()[1])

    def _put(self, item: Window | BaseException | None) -> None:
        """Queue the item; when the queue is full the oldest window makes room."""
        while True:
            try:
                self._queue.put_nowait(item)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self._dropped_windows += 1


def _looks_a_drain(hz: int) -> int:
    """How many looks a drain may wait so that no ring overruns, were every stack new and as deep as can be."""
    longest_s = layout.BANKS * layout.BANK_WORDS / (2 * layout.MAX_FRAMES * hz)
    return max(1, min(MAX_LOOKS_A_DRAIN, int(longest_s / LOOK_INTERVAL_S)))


def load_sampling(hierarchy: Hierarchy) -> Loaded:
    """Load the sampler's program, which tells cgroups by `hierarchy`; nothing is attached yet."""
    defines = sampling_defines(hierarchy) | {"COPROF_KNOWN_STACKS": KNOWN_STACKS}
    return load("sampler.c", defines, SampleRings.MAPS, {"on_tick": "perf_event"})


def load_cgroup_events(hierarchy: Hierarchy) -> Loaded:
    """Load the programs that follow the cgroups of `hierarchy`; nothing is attached yet."""
    programs = {f"on_cgroup_{event}": "raw_tracepoint" for event in _CGROUP_EVENTS}
    return load("cgroup_events.c", {"COPROF_HIERARCHY_ID": hierarchy.hierarchy_id}, CgroupRing.MAPS, programs)


def _unix_events(events: npt.NDArray[np.void], unix_offset_ns: int) -> npt.NDArray[np.void]:
    """`coprof_cgroup_event` as CGROUP_EVENT: the same with Unix time."""
    converted = np.zeros(len(events), dtype=CGROUP_EVENT)
    for name in ("kernel_id", "action", "path"):
        converted[name] = events[name]
    converted["ts_ns"] = events["ts_ns"].astype(np.int64) + unix_offset_ns
    return converted
