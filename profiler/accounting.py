"""Run-queue accounting of one loaded `bpf/sched.c`: slots for cgroups, and what each window waited and for whom.

Waits only grow in the kernel, and a window is the difference between two readings; pairs are taken out. Slots are
small numbers for cgroups: user space fills the ring of free ones, the kernel takes one when it meets a cgroup, and
user space takes it back, with all that hangs on it, once the cgroup has gone.

Kernel limits: task storage in tracing programs (5.11), tracepoints with types. Where the kernel lacks the throttled
clocks or steal time, those causes stay 0.
"""

from __future__ import annotations

import ctypes as ct
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiler import layout
from profiler.bpf_maps import delete_keys, take_hash
from profiler.errors import KernelFeatureMissing
from profiler.hierarchy import Hierarchy
from profiler.loader import Loaded, load, sampling_defines
from profiler.window import CAUSES

TRACEPOINTS = (
    "sched_switch",
    "sched_wakeup",
    "sched_wakeup_new",
    "sched_migrate_task",
    "cgroup_attach_task",
    "softirq_entry",
    "softirq_exit",
    "irq_handler_entry",
    "irq_handler_exit",
)
MAPS = ("sched_cpus", "runs", "delays", "slots", "free_slots", "slot_of_cgroup", "blames")

# Slots below SLOT_FIRST. Those without a name are no task's: there is no aggressor.
GROUPS = {
    1: "[other cgroups]",
    4: "[kworker]",
    5: "[ksoftirqd]",
    6: "[migration]",
    7: "[rcu]",
    8: "[irq thread]",
    9: "[kswapd]",
    10: "[kernel]",
}
_CLASSES = {"online": 1, "offline": 2, "system": 3}
# Column of the kernel's cause_ns for each of CAUSES: the classes of runners, then self and throttled.
CAUSE_COLUMNS = tuple(
    {"idle": 0, **_CLASSES, "kernel": 4, "steal": 5, "irq": 6, "self": 8, "throttled": 9}[cause] for cause in CAUSES
)
CAUSE_OF_CLASS = {0: "idle", 1: "online", 2: "offline", 3: "system", 4: "kernel", 5: "steal", 6: "irq"}
_WINDOW_COUNTERS = {
    "lost_lock": "lost_waits",
    "lost_runs": "lost_waits",
    "lost_moves": "lost_waits",
    "no_record": "lost_waits",
    "lost_set_full": "lost_victims",
    "lost_pairs_ns": "lost_pairs_ns",
    "slots_full": "slots_full",
    "leaked": "leaked_waits",
    "missed": "missed_waits",
}


@dataclass(frozen=True)
class Accounts:
    """What one window waited, a row a slot, for all slots up to the highest in use."""

    cgroup_ids: npt.NDArray[np.uint64]  # (n,) 0 for slots that are no cgroup
    delays: npt.NDArray[np.void]  # (n,) coprof_delay
    run_ns: npt.NDArray[np.uint64]  # (n,)
    pairs: npt.NDArray[np.void]  # coprof_pair
    blames: npt.NDArray[np.void]  # coprof_blame, a row a pair
    counters: dict[str, int]


class SchedAccounting:
    """The accounts of this machine from loading on."""

    def __init__(self, loaded: Loaded, cpus: int) -> None:
        self._loaded = loaded
        self._cpus = loaded.map_array("sched_cpus", layout.coprof_sched_cpu, cpus)
        self._runs = loaded.map_array("runs", layout.coprof_run, cpus * layout.SLOTS).reshape(cpus, layout.SLOTS)
        self._delays = loaded.map_array("delays", layout.coprof_delay, layout.SLOTS)
        self._slots = loaded.map_array("slots", layout.coprof_slot, layout.SLOTS)
        self._free = loaded.map_array("free_slots", layout.coprof_free_slots, 1)
        self._give_back(np.arange(layout.SLOT_FIRST, layout.SLOTS))
        self._read_delays = np.zeros(0, layout.coprof_delay)
        self._read_run_ns = np.zeros(0, np.uint64)
        self._classified = 0  # slots that the kernel had taken when classes were last set
        self._read_counters = self._counters()
        self._settled: list[npt.NDArray[np.void]] = []

    def attach(self) -> list[int]:
        """Attach all programs; returns the links' descriptors. What waits already has no record yet."""
        libbpf = ct.CDLL("libbpf.so.1", use_errno=True)
        links = []
        for tracepoint in TRACEPOINTS:
            link: int = libbpf.bpf_raw_tracepoint_open(None, self._loaded.programs[f"on_{tracepoint}"])
            if link < 0:
                raise KernelFeatureMissing(f"tracepoint {tracepoint}: {os.strerror(ct.get_errno())}; run coprof check")
            links.append(link)
        return links

    def new_slots(self) -> npt.NDArray[np.intp]:
        """Return the slots that the kernel has given to cgroups since the last call."""
        before, self._classified = self._classified, int(self._free["head"][0])
        taken = self._free["slots"][0][np.arange(before, self._classified) % layout.SLOTS]
        return np.asarray(taken, dtype=np.intp)

    def cgroup_ids(self, slots: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Kernel ids of the slots' cgroups, 0 where a slot has none."""
        ids: npt.NDArray[np.uint64] = self._slots["cgroup_id"][slots]
        return ids

    def set_classes(self, slots: npt.NDArray[np.intp], service_classes: list[str]) -> None:
        """Tell the kernel the service classes of cgroups, by their slots."""
        self._slots["class"][slots] = [_CLASSES[service_class] for service_class in service_classes]

    def drain(self) -> None:
        """Take the delays that the kernel gives out afterwards; their room is short."""
        for cpu in self._cpus:
            head, tail = int(cpu["settled_head"]), int(cpu["settled_tail"])
            if head != tail:
                self._settled.append(cpu["settled"][np.arange(tail, head) % layout.SETTLEMENTS])
                cpu["settled_tail"] = head

    def take(self) -> Accounts:
        """Return what has been added since the last call."""
        self.drain()
        used = int(np.flatnonzero(self._slots["cgroup_id"]).max(initial=layout.SLOT_FIRST)) + 1
        delays, run_ns = self._take_delays(used), self._take_run_ns(used)
        pairs, blames = self._take_pairs()
        counters = self._counters()
        grown = {name: counters[name] - self._read_counters[name] for name in counters}
        self._read_counters = counters
        return Accounts(self.cgroup_ids(np.arange(used)), delays, run_ns, pairs, blames, grown)

    def forget(self, cgroup_ids: npt.NDArray[np.uint64]) -> None:
        """Take back the slots of cgroups that have gone, after the last `take` that has to show them."""
        slots = np.flatnonzero(np.isin(self._slots["cgroup_id"], cgroup_ids) & (self._slots["cgroup_id"] != 0))
        if not len(slots):
            return
        delete_keys(self._loaded.maps["slot_of_cgroup"], self._slots["cgroup_id"][slots])
        for table in (self._delays, self._slots):
            table[slots] = np.zeros(1, table.dtype)
        self._runs["run_ns"][:, slots] = 0
        read = slots[slots < len(self._read_delays)]
        self._read_delays[read] = np.zeros(1, layout.coprof_delay)
        self._read_run_ns[read] = 0
        self._give_back(slots)

    def _take_delays(self, used: int) -> npt.NDArray[np.void]:
        now = self._delays[:used].copy()
        self._delays["max_ns"][:used] = 0
        grown = now.copy()
        known = min(used, len(self._read_delays))
        for name in ("wait_ns", "cause_ns", "kinds", "buckets"):
            grown[name][:known] -= self._read_delays[name][:known]
        self._read_delays = now
        return grown

    def _take_run_ns(self, used: int) -> npt.NDArray[np.uint64]:
        now: npt.NDArray[np.uint64] = self._runs["run_ns"][:, :used].sum(axis=0, dtype=np.uint64)
        grown = now.copy()
        known = min(used, len(self._read_run_ns))
        grown[:known] -= self._read_run_ns[:known]
        self._read_run_ns = now
        return grown

    def _take_pairs(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        """Pairs and their delays; settlements are rows of their own."""
        pairs, blames = take_hash(self._loaded.maps["blames"], layout.coprof_pair, layout.coprof_blame, layout.PAIRS)
        late_pairs, late_blames = _settlement_rows(self._settled)
        self._settled = []
        return np.concatenate([pairs, late_pairs]), np.concatenate([blames, late_blames])

    def _counters(self) -> dict[str, int]:
        totals = dict.fromkeys(_WINDOW_COUNTERS.values(), 0)
        for name, counter in _WINDOW_COUNTERS.items():
            totals[counter] += int(self._cpus[name].sum())
        return totals

    def _give_back(self, slots: npt.NDArray[np.intp]) -> None:
        tail = int(self._free["tail"][0])
        self._free["slots"][0][np.arange(tail, tail + len(slots)) % layout.SLOTS] = slots
        self._free["tail"] = tail + len(slots)  # published after the slots


def load_accounting(hierarchy: Hierarchy) -> Loaded:
    """Load the accounting, which tells cgroups by `hierarchy`; nothing is attached yet.

    Raises `KernelFeatureMissing` where the kernel cannot.
    """
    programs = {f"on_{tracepoint}": f"tp_btf:{tracepoint}" for tracepoint in TRACEPOINTS}
    return load("sched.c", sampling_defines(hierarchy), MAPS, programs)


def _settlement_rows(
    settled: list[npt.NDArray[np.void]],
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    rows = np.concatenate(settled or [np.zeros(0, layout.coprof_settlement)])
    pairs, blames = np.zeros(len(rows), layout.coprof_pair), np.zeros(len(rows), layout.coprof_blame)
    for name in ("victim", "aggressor", "class"):
        pairs[name] = rows[name]
    blames["delay_ns"] = blames["max_ns"] = rows["delay_ns"]
    blames["events"] = 1
    return pairs, blames
