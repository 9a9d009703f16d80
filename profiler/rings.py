"""Mapped rings to numpy arrays: one drain copies what all CPUs have published since the last, without a system call.

The kernel's side is `bpf/sampler.c`. A drain reads the heads of samples before those of stacks, because a sample is
published after its stack: a stack that a drained sample names was drained with it or earlier. Only when another CPU was
storing the same stack at that moment may it come a drain later; a window that ends just then counts it as late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiler import layout
from profiler.loader import Loaded


@dataclass(frozen=True)
class Batch:
    """What one drain brought. Addresses of stack record `i` are `addresses[offsets[i]:offsets[i + 1]]`."""

    samples: npt.NDArray[np.void]  # coprof_sample
    stacks: npt.NDArray[np.void]  # coprof_stack
    offsets: npt.NDArray[np.int64]
    addresses: npt.NDArray[np.uint64]


class SampleRings:
    """The rings of all CPUs of one loaded `sampler.c`."""

    MAPS = ("samples", "stacks", "banks", "cpus", "control")

    def __init__(self, loaded: Loaded, cpus: int) -> None:
        self._cpus = loaded.map_array("cpus", layout.coprof_cpu, cpus)
        self._samples = loaded.map_array("samples", layout.coprof_sample, cpus * layout.SAMPLE_SLOTS)
        self._stacks = loaded.map_array("stacks", layout.coprof_stack, cpus * layout.STACK_SLOTS)
        self._control = loaded.map_array("control", layout.coprof_control, 1)
        banks = loaded.map_array("banks", layout.coprof_bank, cpus * layout.BANKS)
        self._words = banks.view("<u8").reshape(-1)
        self._counted = self.counters()
        self._starts = self._samples["process_start_ns"].reshape(cpus, layout.SAMPLE_SLOTS)
        self._exec_ids = self._samples["exec_id"].reshape(cpus, layout.SAMPLE_SLOTS)
        self._looked_until = self._cpus["sample_tail"].tolist()
        self._met: set[int] = set()

    def next_generation(self) -> None:
        """Have every stack stored anew from now on: the window that held them is closed."""
        self._control["generation"] += 1
        self._met.clear()

    def has_new_process(self) -> bool:
        """Tell whether a process was sampled since the last look that no look of this generation has met.

        A tenth of the price of a drain: between two of them all their code leaves the CPU's caches.
        """
        before, self._looked_until = self._looked_until, self._cpus["sample_head"].tolist()
        found: set[int] = set()
        for cpu, (first, end) in enumerate(zip(before, self._looked_until, strict=True)):
            if first != end:
                # What lies beyond the ring's end waits for the drain; so does one of two that have the same sum.
                slots = slice(first % layout.SAMPLE_SLOTS, first % layout.SAMPLE_SLOTS + end - first)
                found.update((self._starts[cpu, slots] + self._exec_ids[cpu, slots]).tolist())
        is_new = not found <= self._met
        self._met |= found
        return is_new

    def drain(self) -> Batch:
        """Copy and free everything published so far."""
        sample_head = self._cpus["sample_head"].copy()
        sample_slots, _ = _slots(self._cpus["sample_tail"], sample_head, layout.SAMPLE_SLOTS)
        samples = self._samples[sample_slots]
        stack_head = self._cpus["stack_head"].copy()
        stack_slots, stack_cpu = _slots(self._cpus["stack_tail"], stack_head, layout.STACK_SLOTS)
        stacks = self._stacks[stack_slots]
        offsets, addresses = self._read_addresses(stacks, stack_cpu)
        self._free(sample_head, stack_head, stacks, stack_cpu)
        return Batch(samples, stacks, offsets, addresses)

    def counters(self) -> dict[str, int]:
        """Totals since the sampler was loaded, over all CPUs."""
        return {name: int(self._cpus[name].sum()) for name in layout.CPU_COUNTERS}

    def take_counters(self) -> dict[str, int]:
        """What the counters grew by since the last call."""
        now, before = self.counters(), self._counted
        self._counted = now
        return {name: now[name] - before[name] for name in now}

    def _read_addresses(
        self, stacks: npt.NDArray[np.void], cpu: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        depth = _depth(stacks)
        bank, word = np.divmod(stacks["first_word"].astype(np.int64), layout.BANK_WORDS)
        bank_row = cpu * layout.BANKS + bank % layout.BANKS
        first = bank_row * (layout.BANK_WORDS + layout.BANK_SLACK) + word
        offsets = np.concatenate([[0], np.cumsum(depth)])
        return offsets, self._words[np.repeat(first - offsets[:-1], depth) + np.arange(offsets[-1])]

    def _free(
        self,
        sample_head: npt.NDArray[np.uint64],
        stack_head: npt.NDArray[np.uint64],
        stacks: npt.NDArray[np.void],
        stack_cpu: npt.NDArray[np.int64],
    ) -> None:
        # The word head may already be past a stack that is not published yet, so the last drained stack counts.
        last = np.flatnonzero(np.diff(stack_cpu, append=-1))
        self._cpus["word_tail"][stack_cpu[last]] = stacks["first_word"][last] + _depth(stacks)[last].astype(np.uint64)
        self._cpus["stack_tail"] = stack_head
        self._cpus["sample_tail"] = sample_head


class CgroupRing:
    """The ring of cgroup events of one loaded `cgroup_events.c`."""

    MAPS = ("cgroup_slots", "cgroup_ring")

    def __init__(self, loaded: Loaded) -> None:
        self._slots = loaded.map_array("cgroup_slots", layout.coprof_cgroup_event, layout.CGROUP_SLOTS)
        self._ring = loaded.map_array("cgroup_ring", layout.coprof_cgroup_ring, 1)
        self._lost = 0

    def drain(self) -> npt.NDArray[np.void]:
        """Copy and free all events published so far, oldest first; `coprof_cgroup_event`."""
        head = self._ring["head"].copy()
        slots, _ = _slots(self._ring["tail"], head, layout.CGROUP_SLOTS)
        events = self._slots[slots]
        self._ring["tail"] = head
        return events

    def has_events(self) -> bool:
        """Tell whether a drain would bring any."""
        return bool(self._ring["head"][0] != self._ring["tail"][0])

    def take_lost(self) -> int:
        """Events lost since the last call."""
        before, self._lost = self._lost, int(self._ring["lost"][0])
        return self._lost - before


def _slots(
    tail: npt.NDArray[np.uint64], head: npt.NDArray[np.uint64], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Slots of all positions from tail to head, ring after ring, and the ring (CPU) of each."""
    count = (head - tail).astype(np.int64)
    ring = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    position = (tail.astype(np.int64) - first)[ring] + np.arange(len(ring))
    return ring * size + (position & (size - 1)), ring


def _depth(stacks: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    depth: npt.NDArray[np.int64] = stacks["kernel_depth"].astype(np.int64) + stacks["user_depth"]
    return depth
