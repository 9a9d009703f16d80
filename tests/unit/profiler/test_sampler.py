"""The clock that closes windows, with a made-up machine: late drains, clock steps, a queue that nobody empties."""

from collections import deque

import numpy as np
import pytest
from sample_windows import make_cgroup

from profiler import layout, sampler
from profiler.cgroups import Lives
from profiler.hierarchy import Hierarchy
from profiler.mappings import MappingTable
from profiler.node import NodeFacts
from profiler.rings import Batch
from profiler.sampler import Sampler, SamplerSettings
from profiler.window import UserEnd
from profiler.workloads import load_rules

S = 1_000_000_000
HOUR_NS = 3600 * S
START = 1_764_500_400 * S  # the start of an hour
WINDOW_S = 10


class Machine:
    """Clocks, rings and tables in one: time passes only while the sampler waits, by the steps of a script."""

    def __init__(self):
        self.unix_ns, self.monotonic_ns_ = START, 1_000 * S
        self.script = deque()
        self.taken, self.recorded = [], {}
        self.known = set()  # stacks of the present generation
        self.is_stopped = False
        self.is_news = True  # so that every look becomes a drain
        self.drains = 0

    # What the script may do between drains.
    def pass_time(self, seconds, samples=0):
        """Let time pass, with so many samples of as many stacks evenly spread over it, the first at its begin."""
        for _ in range(samples):
            self.sample(stack_id=len(self.taken) % 3 + 1)
            self._pass_ns(round(seconds * S) // samples)
        self._pass_ns(0 if samples else round(seconds * S))

    def step_clock(self, seconds):
        self.unix_ns += round(seconds * S)

    def sample(self, stack_id):
        if stack_id not in self.known:
            self.known.add(stack_id)
            self.recorded[stack_id] = stack_id
        self.taken.append((self.monotonic_ns_, 1, 5, stack_id, 100, 100, 1, 0, b"comm"))

    def _pass_ns(self, ns):
        self.unix_ns += ns
        self.monotonic_ns_ += ns

    # The module `time`.
    def time_ns(self):
        return self.unix_ns

    def monotonic_ns(self):
        return self.monotonic_ns_

    def monotonic(self):
        return self.monotonic_ns_ / S

    # The event that says stop.
    def wait(self, seconds):
        if not self.script:
            self.is_stopped = True
            return True
        step = self.script.popleft()
        if step is None:
            self.pass_time(seconds)
        else:
            step(self)
        return False

    def is_set(self):
        return self.is_stopped

    # The rings.
    def drain(self):
        self.drains += 1
        samples, self.taken = np.array(self.taken, layout.coprof_sample), []
        stacks = np.zeros(len(self.recorded), layout.coprof_stack)
        stacks["stack_id"] = list(self.recorded)
        stacks["kernel_depth"] = 1
        addresses = np.array(list(self.recorded), np.uint64)
        self.recorded = {}
        return Batch(samples, stacks, np.arange(len(stacks) + 1), addresses)

    def has_new_process(self):
        return self.is_news

    def next_generation(self):
        self.known.clear()

    def take_counters(self):
        return {}

    # The table of cgroups.
    def observe(self, events):
        assert len(events) == 0

    def lives(self, kernel_ids, ts_ns):
        return Lives(np.zeros(len(kernel_ids), np.int32), (make_cgroup("web"),), 0)


class QuietCgroupRing:
    def has_events(self):
        return False

    def drain(self):
        return np.zeros(0, layout.coprof_cgroup_event)

    def take_lost(self):
        return 0


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine()
    monkeypatch.setattr(sampler, "time", machine)
    monkeypatch.setattr(sampler, "QUEUED_WINDOWS", 1000)
    monkeypatch.setattr(sampler, "FIRST_WINDOW_NS", WINDOW_S * S)  # only one test is about the short first window
    monkeypatch.setattr(sampler, "online_cpus", set)
    monkeypatch.setattr(sampler, "read_busy_ns", lambda: machine.monotonic_ns_)
    monkeypatch.setattr(sampler, "detect_hierarchy", lambda mode: Hierarchy("v2", tmp_path, 0))
    monkeypatch.setattr(sampler, "read_node", lambda name: NodeFacts("n", "b", 1, "6.1", ""))
    monkeypatch.setattr(sampler, "MappingTable", lambda: MappingTable(tmp_path))
    return machine


def run(machine, *script):
    """The windows of a run; a step is None (an interval with nothing in it) or a function of the machine."""
    machine.script.extend(script)
    profiler = Sampler(SamplerSettings(hz=50, event="cpu-clock", window_s=WINDOW_S), load_rules())
    profiler._rings, profiler._cgroup_ring = machine, QuietCgroupRing()
    profiler._cgroups, profiler._stopping = machine, machine
    profiler._run()
    return list(profiler)


def seconds(count, samples=0):
    return lambda machine: machine.pass_time(count, samples)


def assert_whole(windows, samples):
    """No sample is lost or outside its window, and each has its stack."""
    assert sum(len(window.samples) for window in windows) == samples
    assert sum(window.count("samples") for window in windows) == samples
    for window in windows:
        assert window.start_ns < window.end_ns
        assert (window.samples["ts_ns"] >= window.start_ns).all()
        assert (window.samples["ts_ns"] < window.end_ns).all()
        assert (window.stacks.user_end == UserEnd.NONE).all(), "a stack is missing"


def spans(windows):
    return [((window.start_ns - START) / S, (window.end_ns - START) / S) for window in windows]


def test_the_first_window_is_short(machine, monkeypatch):
    monkeypatch.setattr(sampler, "FIRST_WINDOW_NS", 3 * S)
    machine.step_clock(4)
    assert spans(run(machine, *[None] * 44)) == [(4, 7), (7, 10), (10, 15)]


def test_windows_are_anchored_to_the_clock(machine):
    machine.unix_ns += 3 * S
    windows = run(machine, *[seconds(0.25, 5)] * 80)
    assert spans(windows) == [(3, 10), (10, 20), (20, 23)]
    assert [len(window.samples) for window in windows[:2]] == [140, 200], "one on the edge belongs to the next"
    assert_whole(windows, 400)
    assert [window.count("expected_samples") for window in windows] == [350, 500, 150]


def test_a_drain_is_late_when_it_comes_after_twice_its_interval(machine):
    (window,) = run(machine, None, None, seconds(0.4), seconds(0.6), None)
    assert window.counters["late_drains"] == 1


def test_samples_drained_after_their_windows_end_are_theirs_and_have_their_stacks(machine):
    windows = run(machine, seconds(9), seconds(4, 40), *[None] * 4)
    assert spans(windows) == [(0, 10), (10, 14)]
    assert [len(window.samples) for window in windows] == [10, 30]
    assert_whole(windows, 40)


def test_one_late_drain_may_bring_several_windows(machine):
    windows = run(machine, seconds(35, 350), *[None] * 4)
    assert spans(windows) == [(0, 10), (10, 20), (20, 30), (30, 36)]
    assert_whole(windows, 350)


def test_a_machine_that_slept_gets_one_long_window(machine):
    windows = run(machine, seconds(1000, 100), None)
    assert spans(windows) == [(0, 1000), (1000, 1000.25)]
    assert_whole(windows, 100)


@pytest.mark.parametrize("step_s", [-HOUR_NS / S, -2, 2, HOUR_NS / S])
def test_a_stepped_clock_closes_the_window_and_moves_no_sample(machine, step_s):
    def step(machine):
        machine.pass_time(0.125, 5)
        machine.step_clock(step_s)
        machine.pass_time(0.125, 5)

    windows = run(machine, seconds(5, 50), step, seconds(0.25, 5), None)
    assert spans(windows)[0] == pytest.approx((0, 5.25), abs=1e-6)
    assert spans(windows)[1][0] == 5.25 + step_s
    assert [len(window.samples) for window in windows[:2]] == [60, 5]
    assert_whole(windows, 65)


@pytest.mark.parametrize("slew_s", [-0.5, 0.5])
def test_a_slewed_clock_loses_no_sample(machine, slew_s):
    script = [seconds(5, 50), lambda machine: machine.step_clock(slew_s), *[seconds(0.25, 5)] * 60]
    assert_whole(run(machine, *script), 350)


@pytest.mark.parametrize("step_s", [0, -60, 60])
def test_samples_taken_while_stopping_are_kept_whatever_the_clock_does(machine, step_s):
    def stop(_):
        machine.pass_time(0.1, 10)
        machine.step_clock(step_s)
        machine.is_stopped = True
        return True

    machine.wait = stop
    windows = run(machine)
    assert spans(windows) == [(0, pytest.approx(0.1))]
    assert_whole(windows, 10)


def test_windows_that_nobody_takes_are_dropped_and_counted(machine, monkeypatch):
    monkeypatch.setattr(sampler, "QUEUED_WINDOWS", 3)
    windows = run(machine, *[seconds(10)] * 8)
    assert [start for start, _ in spans(windows)] == [70, 80]
    assert [window.count("dropped_windows") for window in windows] == [1, 1]


def test_an_error_in_the_thread_reaches_whoever_iterates(machine):
    def fail(_):
        raise OSError("the ring is gone")

    with pytest.raises(OSError, match="the ring is gone"):
        run(machine, None, fail)


def test_without_news_a_drain_may_wait_but_not_beyond_the_window(machine):
    machine.is_news = False
    machine.unix_ns += S // 2
    windows = run(machine, *[seconds(0.25, 5)] * 42)
    assert spans(windows) == [(0.5, 10), (10, 11)]
    assert_whole(windows, 210)
    assert machine.drains == 10 + 1 + 1, "one a second, one at the end of the window, one at the end of all"


def test_without_news_a_step_of_the_clock_is_met_with_the_next_drain(machine):
    machine.is_news = False
    windows = run(machine, seconds(5, 50), lambda machine: machine.step_clock(-60), *[seconds(0.25, 5)] * 8)
    assert spans(windows)[0][0] == 0 and 5 <= spans(windows)[0][1] <= 6
    assert_whole(windows, 90)
