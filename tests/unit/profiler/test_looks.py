"""When a drain may wait: what a look between two of them sees, and how many of them there may be."""

import numpy as np
import pytest

from profiler import layout
from profiler.rings import CgroupRing, SampleRings
from profiler.sampler import LOOK_INTERVAL_S, MAX_LOOKS_A_DRAIN, _looks_a_drain

CPUS = 2


class Maps:
    """Plain arrays in the place of mapped memory; the test plays the kernel."""

    def __init__(self):
        self.arrays = {}

    def map_array(self, name, dtype, count):
        return self.arrays.setdefault(name, np.zeros(count, dtype))

    def publish(self, cpu, start_ns, exec_id=0):
        head = int(self.arrays["cpus"]["sample_head"][cpu])
        slot = cpu * layout.SAMPLE_SLOTS + head % layout.SAMPLE_SLOTS
        self.arrays["samples"]["process_start_ns"][slot] = start_ns
        self.arrays["samples"]["exec_id"][slot] = exec_id
        self.arrays["cpus"]["sample_head"][cpu] += 1


@pytest.fixture
def maps():
    return Maps()


@pytest.fixture
def rings(maps):
    return SampleRings(maps, CPUS)


def test_nothing_sampled_is_nothing_new(rings):
    assert not rings.has_new_process()


def test_a_process_is_new_once_on_whichever_cpu(maps, rings):
    maps.publish(1, 1_000)
    assert rings.has_new_process()
    for cpu in (0, 1):
        maps.publish(cpu, 1_000)
    assert not rings.has_new_process()
    maps.publish(0, 2_000)
    assert rings.has_new_process()


def test_an_exec_is_new(maps, rings):
    maps.publish(0, 1_000, exec_id=1)
    rings.has_new_process()
    maps.publish(0, 1_000, exec_id=2)
    assert rings.has_new_process()


def test_a_new_generation_has_met_nobody(maps, rings):
    for _ in range(2):
        maps.publish(0, 1_000)
        assert rings.has_new_process()
        rings.next_generation()


def test_a_look_takes_nothing_from_the_drain(maps, rings):
    maps.publish(0, 1_000)
    rings.has_new_process()
    assert rings.drain().samples["process_start_ns"].tolist() == [1_000]


def test_looks_go_on_around_the_ring(maps, rings):
    for _ in range(3 * layout.SAMPLE_SLOTS // 500):
        for _ in range(500):
            maps.publish(0, 1_000)
        rings.has_new_process()
        rings.drain()
    maps.publish(0, 2_000)
    assert rings.has_new_process()


def test_cgroup_events_are_seen_until_they_are_drained(maps):
    ring = CgroupRing(maps)
    assert not ring.has_events()
    maps.arrays["cgroup_ring"]["head"] += 1
    assert ring.has_events()
    ring.drain()
    assert not ring.has_events()


@pytest.mark.parametrize("hz", [1, 49, 99, 199, 499, 999])
def test_no_ring_overruns_before_its_drain(hz):
    looks = _looks_a_drain(hz)
    assert 1 <= looks <= MAX_LOOKS_A_DRAIN
    words = hz * looks * LOOK_INTERVAL_S * 2 * layout.MAX_FRAMES
    assert looks == 1 or words <= layout.BANKS * layout.BANK_WORDS
    assert hz * looks * LOOK_INTERVAL_S <= layout.SAMPLE_SLOTS


def test_the_default_rate_drains_once_a_second():
    assert _looks_a_drain(49) * LOOK_INTERVAL_S == 1
