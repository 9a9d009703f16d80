"""Draining mapped rings, with a writer that plays the kernel's side on plain arrays by the rules of `sampler.c`."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import layout
from profiler.rings import CgroupRing, SampleRings
from profiler.window import UserEnd

CPUS = 3
FAR = 1 << 40  # positions only grow: a year of samples is far beyond 32 bits
SIZES = {
    "samples": (layout.coprof_sample, layout.SAMPLE_SLOTS),
    "stacks": (layout.coprof_stack, layout.STACK_SLOTS),
    "banks": (layout.coprof_bank, layout.BANKS),
    "cpus": (layout.coprof_cpu, 1),
}


class WatchedArray(np.ndarray):
    """Calls `on_read` when a field is read, to let something happen in the middle of a drain."""

    on_read = None

    def __getitem__(self, key):
        if self.on_read is not None and isinstance(key, str):
            self.on_read(key)
        return super().__getitem__(key)


class Kernel:
    """What runs on the CPUs: publishes stacks and samples, and keeps a list of what it has published on each."""

    def __init__(self, sample_position=0, stack_position=0, word_position=0):
        self.maps = {name: np.zeros(CPUS * count, dtype) for name, (dtype, count) in SIZES.items()}
        self.maps["cpus"] = self.maps["cpus"].view(WatchedArray)
        self.maps["control"] = np.zeros(1, layout.coprof_control)
        self.cpus = self.maps["cpus"].view(np.ndarray)
        for kind, position in (("sample", sample_position), ("stack", stack_position), ("word", word_position)):
            self.cpus[f"{kind}_head"] = self.cpus[f"{kind}_tail"] = position
        self.samples = [[] for _ in range(CPUS)]
        self.stacks = {}
        self._numbers = itertools.count(1)

    def map_array(self, name, dtype, count):
        assert (self.maps[name].dtype, len(self.maps[name])) == (dtype, count)
        return self.maps[name]

    def rings(self):
        return SampleRings(self, CPUS)

    def used(self, cpu, kind):
        return int(self.cpus[f"{kind}_head"][cpu] - self.cpus[f"{kind}_tail"][cpu])

    def write_stack(self, cpu, kernel_depth, user_depth):
        """Write a stack past the heads and move the word head, as far as it gets before it is published."""
        word_room = layout.BANKS * layout.BANK_WORDS - layout.BANK_SLACK
        if self.used(cpu, "stack") >= layout.STACK_SLOTS or self.used(cpu, "word") > word_room:
            self.cpus["lost_stack_full"][cpu] += 1
            return 0
        first_word, stack_id = int(self.cpus["word_head"][cpu]), next(self._numbers)
        addresses = np.arange(kernel_depth + user_depth, dtype=np.uint64) + np.uint64(stack_id * 1000)
        addresses[:kernel_depth] += np.uint64(0xFFFF_8000_0000_0000)
        bank = self.maps["banks"]["words"][cpu * layout.BANKS + first_word // layout.BANK_WORDS % layout.BANKS]
        word = first_word % layout.BANK_WORDS
        bank[word : word + len(addresses)] = addresses
        slot = cpu * layout.STACK_SLOTS + int(self.cpus["stack_head"][cpu]) % layout.STACK_SLOTS
        record = (stack_id, first_word, 5, 6, 7, kernel_depth, user_depth, UserEnd.FRAME_POINTER)
        self.maps["stacks"][slot] = record
        self.cpus["word_head"][cpu] += len(addresses)
        self.stacks[stack_id] = (record, addresses.tolist())
        return stack_id

    def publish_stack(self, cpu, kernel_depth, user_depth):
        stack_id = self.write_stack(cpu, kernel_depth, user_depth)
        self.cpus["stack_head"][cpu] += stack_id > 0
        return stack_id

    def publish_sample(self, cpu, stack_id=0):
        if self.used(cpu, "sample") >= layout.SAMPLE_SLOTS:
            self.cpus["lost_ring_full"][cpu] += 1
            return
        slot = cpu * layout.SAMPLE_SLOTS + int(self.cpus["sample_head"][cpu]) % layout.SAMPLE_SLOTS
        sample = (next(self._numbers), 1, 2, stack_id, 3, 4, 5, cpu, b"comm")
        self.maps["samples"][slot] = sample
        self.cpus["sample_head"][cpu] += 1
        self.samples[cpu].append(sample)


@dataclass
class Drained:
    """Everything that drains have brought, batch after batch."""

    samples: list = field(default_factory=list)
    stacks: dict = field(default_factory=dict)

    def add(self, batch):
        self.samples += batch.samples.tolist()
        for row, stack in enumerate(batch.stacks.tolist()):
            assert stack[0] not in self.stacks, "a stack was drained twice"
            addresses = batch.addresses[batch.offsets[row] : batch.offsets[row + 1]]
            self.stacks[stack[0]] = (stack, addresses.tolist())

    def of_cpu(self, cpu):
        return [sample for sample in self.samples if sample[7] == cpu]


def near_multiples(size):
    """Positions from which some records wrap around the end of a ring of `size`."""
    return st.builds(lambda lap, before: FAR + lap * size - before, st.integers(1, 40), st.integers(0, 40))


depths = st.one_of(st.integers(0, 5), st.integers(0, layout.MAX_FRAMES))
publishing = st.tuples(st.integers(0, CPUS - 1), depths, depths)
DRAIN = None


@settings(max_examples=150, deadline=None)
@given(
    near_multiples(layout.SAMPLE_SLOTS),
    near_multiples(layout.STACK_SLOTS),
    near_multiples(layout.BANK_WORDS),
    st.lists(st.one_of(publishing, st.just(DRAIN)), max_size=60),
)
def test_every_sample_and_stack_is_drained_once_in_order_and_whole(sample_at, stack_at, word_at, steps):
    kernel = Kernel(sample_at, stack_at, word_at)
    rings, drained = kernel.rings(), Drained()
    for step in [*steps, DRAIN]:
        if step is DRAIN:
            drained.add(rings.drain())
            assert {sample[3] for sample in drained.samples} <= drained.stacks.keys() | {0}
        else:
            cpu, kernel_depth, user_depth = step
            kernel.publish_sample(cpu, kernel.publish_stack(cpu, kernel_depth, user_depth))
    assert [drained.of_cpu(cpu) for cpu in range(CPUS)] == kernel.samples
    assert drained.stacks == kernel.stacks
    assert rings.drain().samples.size == rings.drain().stacks.size == 0


def test_a_drain_frees_room_for_whole_rings_again_and_again():
    kernel = Kernel()
    rings, drained = kernel.rings(), Drained()
    for _ in range(3):
        for _ in range(layout.SAMPLE_SLOTS):
            kernel.publish_sample(1)
            kernel.publish_stack(2, 1, 1)
        drained.add(rings.drain())
    assert rings.counters()["lost_ring_full"] == rings.counters()["lost_stack_full"] == 0
    assert drained.of_cpu(1) == kernel.samples[1]
    assert len(drained.samples) == len(drained.stacks) == 3 * layout.SAMPLE_SLOTS
    assert drained.stacks == kernel.stacks


def test_banks_filled_to_the_last_word_come_out_whole_lap_after_lap():
    kernel = Kernel(word_position=FAR)
    rings, drained = kernel.rings(), Drained()
    for lap in range(4):
        while kernel.publish_stack(0, layout.MAX_FRAMES, layout.MAX_FRAMES):
            pass
        assert len(kernel.stacks) >= (lap + 1) * 127, "the banks hold some 128 of the deepest stacks"
        drained.add(rings.drain())
    assert drained.stacks == kernel.stacks


def test_a_stack_that_starts_on_the_last_word_of_a_bank_runs_into_the_slack():
    kernel = Kernel(word_position=FAR + layout.BANK_WORDS - 1)
    rings, drained = kernel.rings(), Drained()
    kernel.publish_stack(1, layout.MAX_FRAMES, layout.MAX_FRAMES)
    kernel.publish_stack(1, 0, 2)
    drained.add(rings.drain())
    assert drained.stacks == kernel.stacks


def test_more_than_the_rings_hold_is_counted_by_the_kernel_and_never_mixed_up():
    kernel = Kernel()
    rings, drained = kernel.rings(), Drained()
    for _ in range(layout.SAMPLE_SLOTS + 7):
        kernel.publish_sample(0, kernel.publish_stack(0, 1, 1))
    drained.add(rings.drain())
    assert (len(drained.samples), drained.stacks) == (layout.SAMPLE_SLOTS, kernel.stacks)
    taken = rings.take_counters()
    assert (taken["lost_ring_full"], taken["lost_stack_full"]) == (7, 7)


def test_a_stack_under_way_keeps_its_words_until_it_is_published():
    kernel = Kernel()
    rings, drained = kernel.rings(), Drained()
    kernel.publish_stack(0, 2, 3)
    stack_id = kernel.write_stack(0, 4, 5)
    drained.add(rings.drain())
    assert stack_id not in drained.stacks
    assert kernel.used(0, "word") == 9, "the words of the unpublished stack are not free"
    kernel.cpus["stack_head"][0] += 1
    drained.add(rings.drain())
    assert drained.stacks == kernel.stacks
    assert kernel.used(0, "word") == 0


@pytest.mark.parametrize("moment", ["sample_head", "sample_tail", "stack_head", "stack_tail", "word_tail"])
def test_what_is_published_during_a_drain_comes_now_or_with_the_next(moment):
    kernel = Kernel()
    rings, drained = kernel.rings(), Drained()
    kernel.publish_sample(1, kernel.publish_stack(1, 1, 1))

    def publish_once(name):
        if name == moment:
            kernel.maps["cpus"].on_read = None
            kernel.publish_sample(1, kernel.publish_stack(1, 1, 1))

    kernel.maps["cpus"].on_read = publish_once
    for _ in range(2):
        drained.add(rings.drain())
        assert {sample[3] for sample in drained.samples} <= drained.stacks.keys(), "a sample came before its stack"
    assert kernel.maps["cpus"].on_read is None, "the moment came"
    assert (drained.of_cpu(1), drained.stacks) == (kernel.samples[1], kernel.stacks)


def test_a_batch_is_a_copy_that_later_samples_do_not_overwrite():
    kernel = Kernel()
    rings = kernel.rings()
    kernel.publish_sample(0, kernel.publish_stack(0, 1, 2))
    batch = rings.drain()
    before = (batch.samples.tolist(), batch.stacks.tolist(), batch.addresses.tolist())
    for memory in kernel.maps.values():
        memory.view(np.ndarray).view(np.uint8)[:] = 0xEE
    assert (batch.samples.tolist(), batch.stacks.tolist(), batch.addresses.tolist()) == before


def test_counters_are_summed_over_cpus_and_taken_as_differences():
    kernel = Kernel()
    kernel.cpus["idle_ticks"] = 100  # of before the rings were mapped: not ours
    rings = kernel.rings()
    assert set(rings.take_counters().values()) == {0}
    kernel.cpus["idle_ticks"] += 5
    kernel.cpus["truncated_stacks"][2] += 1
    kernel.cpus["ticks"] += 50
    assert {name: count for name, count in rings.take_counters().items() if count} == {
        "idle_ticks": 5 * CPUS,
        "truncated_stacks": 1,
    }
    assert set(rings.take_counters().values()) == {0}
    assert rings.counters()["idle_ticks"] == 105 * CPUS


def test_each_window_is_a_generation_of_its_own():
    kernel = Kernel()
    rings = kernel.rings()
    rings.next_generation()
    rings.next_generation()
    assert kernel.maps["control"]["generation"].tolist() == [2]


def test_a_process_is_new_once_a_generation():
    kernel = Kernel(sample_position=FAR + layout.SAMPLE_SLOTS // 2)
    rings = kernel.rings()

    def look_after_samples_of(*starts_ns):
        for cpu, start_ns in enumerate(starts_ns):
            slot = cpu * layout.SAMPLE_SLOTS + int(kernel.cpus["sample_head"][cpu]) % layout.SAMPLE_SLOTS
            kernel.publish_sample(cpu)
            kernel.maps["samples"]["process_start_ns"][slot] = start_ns
        return rings.has_new_process()

    assert not rings.has_new_process(), "nothing was sampled"
    assert look_after_samples_of(100, 200)
    assert not look_after_samples_of(200, 100), "met, if on another CPU"
    rings.drain()
    assert not look_after_samples_of(100)
    assert look_after_samples_of(100, 200, 300)
    assert not rings.has_new_process()
    rings.next_generation()
    assert not rings.has_new_process(), "met, but not sampled since"
    assert look_after_samples_of(100)


class CgroupKernel:
    def __init__(self, position):
        self.maps = {
            "cgroup_slots": np.zeros(layout.CGROUP_SLOTS, layout.coprof_cgroup_event),
            "cgroup_ring": np.zeros(1, layout.coprof_cgroup_ring),
        }
        self.ring = self.maps["cgroup_ring"]
        self.ring["head"] = self.ring["tail"] = position
        self.published = []

    def map_array(self, name, dtype, count):
        assert (self.maps[name].dtype, len(self.maps[name])) == (dtype, count)
        return self.maps[name]

    def publish(self):
        if self.ring["head"] - self.ring["tail"] >= layout.CGROUP_SLOTS:
            self.ring["lost"] += 1
            return
        position = int(self.ring["head"][0])
        event = (position, 9, 1, 0, b"/group/%d" % position)
        self.maps["cgroup_slots"][position % layout.CGROUP_SLOTS] = event
        self.ring["head"] += 1
        self.published.append(event)


@settings(max_examples=50, deadline=None)
@given(near_multiples(layout.CGROUP_SLOTS), st.lists(st.integers(0, 300), max_size=8))
def test_cgroup_events_are_drained_once_in_order_and_losses_counted(position, bursts):
    kernel = CgroupKernel(position)
    ring, drained, lost = CgroupRing(kernel), [], 0
    for burst in bursts:
        for _ in range(burst):
            kernel.publish()
        assert ring.has_events() == (burst > 0)
        drained += ring.drain().tolist()
        lost += ring.take_lost()
        assert not ring.has_events()
    assert drained == kernel.published
    assert lost == sum(max(0, burst - layout.CGROUP_SLOTS) for burst in bursts)
    assert ring.take_lost() == 0
