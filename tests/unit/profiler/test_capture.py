"""Windows made of hand-written batches: who a stack belongs to, what was lost, and that nothing is invented."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_windows import make_cgroup, make_node

from profiler import layout
from profiler.capture import close_window, process_keys, uncovered_processes
from profiler.cgroups import Lives
from profiler.rings import Batch
from profiler.window import COUNTERS, MAPPING, Build, UserEnd

NODE = make_node(sample_hz=49)
SPAN_NS = (1_000, 2_000)
WEB = (100, 1, 5_000)  # tgid, exec id, start
KTHREAD = (2, 0, 10)
CODE = 0x40_0000


def sample(process=WEB, stack_id=0, ts_ns=1_500, cgroup_id=1, tid=None, cpu=0):
    tgid, exec_id, start_ns = process
    return (ts_ns, cgroup_id, start_ns, stack_id, tgid, tid or tgid, exec_id, cpu, b"comm")


def samples_of(*rows):
    return np.array(list(rows), layout.coprof_sample)


def batch_of(*stacks):
    """A batch of (id, owner, kernel addresses, user addresses, how the user part ended)."""
    records = np.zeros(len(stacks), layout.coprof_stack)
    for record, (stack_id, (tgid, exec_id, start_ns), kernel, user, end) in zip(records, stacks, strict=True):
        record["stack_id"], record["user_end"] = stack_id, end
        if end != UserEnd.NONE:
            record["tgid"], record["exec_id"], record["process_start_ns"] = tgid, exec_id, start_ns
        record["kernel_depth"], record["user_depth"] = len(kernel), len(user)
    addresses = [address for _, _, kernel, user, _ in stacks for address in (*kernel, *user)]
    offsets = np.cumsum([0] + [len(kernel) + len(user) for _, _, kernel, user, _ in stacks])
    return Batch(np.zeros(0, layout.coprof_sample), records, offsets, np.array(addresses, np.uint64))


def user_stack(stack_id, *addresses, owner=WEB):
    return (stack_id, owner, (), addresses, UserEnd.FRAME_POINTER)


def kernel_stack(stack_id, *addresses):
    return (stack_id, KTHREAD, addresses, (), UserEnd.NONE)


class Cgroups:
    """Every kernel id is a cgroup; those above 900 have no name."""

    def lives(self, kernel_ids, ts_ns):
        ids, rows = np.unique(kernel_ids, return_inverse=True)
        cgroups = tuple(make_cgroup(f"group{number}", kernel_id=number) for number in ids.tolist())
        return Lives(rows.astype(np.int32), cgroups, int((ids > 900).sum()))


class Mappings:
    """One page of code each for the processes it was given, each in the builds named."""

    def __init__(self):
        self.builds = {}
        self._processes = {}

    def add(self, key, *numbers, start=CODE):
        rows = [(0, number, start + i * 0x1000, start + (i + 1) * 0x1000, 0) for i, number in enumerate(numbers)]
        self._processes[key] = np.array(rows, MAPPING)
        self.builds |= {number: Build(f"{number:02x}", f"/build{number}") for number in numbers}

    def of(self, key):
        return self._processes.get(key)

    def covers(self, key, addresses):
        return key not in self._processes or bool(np.all((addresses >= CODE) & (addresses < CODE + 0x1000)))


@pytest.fixture
def mappings():
    table = Mappings()
    table.add(WEB, 7)
    return table


def close(samples, *batches, mappings=None, counters=None):
    return close_window(SPAN_NS, NODE, samples, batches, Cgroups(), mappings or Mappings(), counters or {})


def stack_of(window, row):
    """What sample `row` ran: kernel addresses, user addresses, owner, end."""
    stack = window.samples["stack"][row]
    begin, end = window.stacks.offsets[stack : stack + 2]
    depth = window.stacks.kernel_depth[stack]
    addresses = window.stacks.addresses[begin:end].tolist()
    owner = window.stacks.process[stack]
    key = tuple(window.processes[owner].tolist()) if owner >= 0 else None
    return tuple(addresses[:depth]), tuple(addresses[depth:]), key, window.stacks.user_end[stack]


def process_of(window, row):
    return tuple(window.processes[window.samples["process"][row]].tolist())


def test_a_sample_becomes_a_row_with_everything_it_names(mappings):
    stack = (5, WEB, (0xFFFF_8000_0000_0010,), (CODE, CODE + 8), UserEnd.FRAME_POINTER)
    window = close(samples_of(sample(stack_id=5, cgroup_id=42, tid=101, cpu=3)), batch_of(stack), mappings=mappings)
    assert (window.start_ns, window.end_ns, window.node) == (*SPAN_NS, NODE)
    (row,) = window.samples.tolist()
    assert row == (1_500, 1_000_000_000 // 49, 0, 0, 0, 101, 3, b"comm")
    assert process_of(window, 0) == WEB
    assert stack_of(window, 0) == ((0xFFFF_8000_0000_0010,), (CODE, CODE + 8), WEB, UserEnd.FRAME_POINTER)
    assert [cgroup.kernel_id for cgroup in window.cgroups] == [42]
    assert window.mappings.tolist() == [(0, 0, CODE, CODE + 0x1000, 0)]
    assert window.builds == (Build("07", "/build7"),)
    assert window.counters == {"samples": 1}


def test_a_window_without_samples_is_a_window():
    window = close(samples_of(), counters={"idle_ticks": 490, "late_drains": 0})
    assert len(window.samples) == len(window.stacks) == len(window.processes) == len(window.mappings) == 0
    assert window.stacks.offsets.tolist() == [0]
    assert window.builds == window.cgroups == ()
    assert window.counters == {"idle_ticks": 490}


def test_samples_are_in_order_of_time():
    window = close(samples_of(*(sample(ts_ns=ts_ns, tid=ts_ns) for ts_ns in (1_700, 1_200, 1_900))))
    assert window.samples["ts_ns"].tolist() == window.samples["tid"].tolist() == [1_200, 1_700, 1_900]


def test_stacks_of_the_batches_of_the_window_before_are_found(mappings):
    earlier, now = batch_of(user_stack(3, CODE), user_stack(4, CODE + 4)), batch_of(user_stack(9, CODE + 8))
    window = close(samples_of(sample(stack_id=4), sample(stack_id=9)), earlier, now, mappings=mappings)
    assert [stack_of(window, row)[1] for row in range(2)] == [(CODE + 4,), (CODE + 8,)]
    assert len(window.stacks) == 2, "only stacks that samples name are kept"


def test_a_stack_recorded_twice_is_one(mappings):
    batches = [
        batch_of(user_stack(3, CODE, CODE + 1)),
        batch_of(user_stack(8, CODE + 2), user_stack(3, CODE, CODE + 1)),
    ]
    window = close(samples_of(sample(stack_id=3), sample(stack_id=3)), *batches, mappings=mappings)
    assert len(window.stacks) == 1
    assert stack_of(window, 1)[1] == (CODE, CODE + 1)


@pytest.mark.parametrize("stack_id", [0, 77])
def test_a_lost_stack_belongs_to_nobody_and_keeps_its_sample(stack_id, mappings):
    gone = (300, 1, 9)
    rows = (sample(stack_id=stack_id, process=gone), sample(stack_id=stack_id), sample(stack_id=5))
    window = close(samples_of(*rows), batch_of(user_stack(5, CODE)), mappings=mappings)
    assert [stack_of(window, row) for row in (0, 1)] == [((), (), None, UserEnd.LOST)] * 2
    assert [process_of(window, row) for row in (0, 1)] == [gone, WEB]
    assert stack_of(window, 2) == ((), (CODE,), WEB, UserEnd.FRAME_POINTER)
    late = {"lost_stack_late": 2} if stack_id else {}  # without a stack from the start it is counted in the kernel
    assert window.counters == {"samples": 3, **late}, "no mappings were needed of the process without a stack"


def test_kernel_threads_have_no_owner_and_need_no_mappings():
    rows = (sample(KTHREAD, stack_id=5), sample((3, 0, 11), stack_id=5))
    window = close(samples_of(*rows), batch_of(kernel_stack(5, 2**63)))
    assert len(window.stacks) == 1, "equal kernel stacks are one in all processes"
    assert stack_of(window, 0) == stack_of(window, 1) == ((2**63,), (), None, UserEnd.NONE)
    assert window.counters == {"samples": 2}


@pytest.mark.parametrize(
    "other", [(100, 1, 6_000), (100, 2, 5_000)], ids=["the pid came back", "the process executed another program"]
)
def test_incarnations_of_a_tgid_are_kept_apart(other, mappings):
    mappings.add(other, 8)
    rows = samples_of(sample(WEB, stack_id=5), sample(other, stack_id=6))
    batch = batch_of(user_stack(5, CODE), user_stack(6, CODE, owner=other))
    window = close(rows, batch, mappings=mappings)
    assert [process_of(window, row) for row in (0, 1)] == [WEB, other]
    assert [stack_of(window, row)[2] for row in (0, 1)] == [WEB, other]
    assert {
        tuple(window.processes[row["process"]].tolist()): window.builds[row["build"]].path for row in window.mappings
    } == {WEB: "/build7", other: "/build8"}


def test_mappings_that_were_never_read_are_counted_by_process(mappings):
    gone = [(200, 1, 1), (201, 1, 1)]
    rows = samples_of(*(sample(key, stack_id=5 + i) for i, key in enumerate([WEB, *gone, gone[0]])))
    batch = batch_of(*(user_stack(5 + i, CODE, owner=key) for i, key in enumerate([WEB, *gone, gone[0]])))
    window = close(rows, batch, mappings=mappings)
    assert window.counters == {"samples": 4, "unread_mappings": 2}
    assert len(window.mappings) == 1


def test_mappings_are_sorted_by_process_and_start_and_number_the_windows_own_builds():
    table = Mappings()
    table.add((50, 1, 1), 30, 10)
    table.add(WEB, 10, 20, start=0x7000_0000)
    table.add((999, 1, 1), 99)  # not sampled
    rows = samples_of(sample(WEB, stack_id=1), sample((50, 1, 1), stack_id=2))
    batch = batch_of(user_stack(1, 0x7000_0000), user_stack(2, CODE, owner=(50, 1, 1)))
    window = close(rows, batch, mappings=table)
    pairs = list(zip(window.mappings["process"].tolist(), window.mappings["start"].tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert [window.builds[row].path for row in window.mappings["build"]] == [f"/build{i}" for i in (30, 10, 10, 20)]
    assert len(window.builds) == 3
    assert table.of(WEB)[["process", "build"]].tolist() == [(0, 10), (0, 20)], "the table's own rows are left alone"


def test_losses_are_carried_and_cgroups_without_a_name_counted():
    rows = samples_of(sample(cgroup_id=901), sample(cgroup_id=902), sample(cgroup_id=1))
    window = close(rows, counters={"lost_ring_full": 3, "truncated_stacks": 0})
    assert window.counters == {"lost_ring_full": 3, "samples": 3, "unnamed_cgroups": 2}


keys = st.sampled_from([WEB, (100, 1, 6_000), (100, 2, 5_000), (7, 1, 5_000)])
contents = st.lists(st.integers(CODE, CODE + 0xFFF), max_size=4)
ends = st.sampled_from([UserEnd.FRAME_POINTER, UserEnd.TRUNCATED, UserEnd.FAILED, UserEnd.NONE])
stack_records = st.lists(st.tuples(keys, contents, contents, ends), max_size=12)


@settings(max_examples=200, deadline=None)
@given(stack_records, st.data())
def test_every_sample_keeps_its_time_process_and_stack(records, data):
    stacks = [
        (number, key, tuple(kernel), tuple(user) if end in (UserEnd.FRAME_POINTER, UserEnd.TRUNCATED) else (), end)
        for number, (key, kernel, user, end) in enumerate(records, start=1)
    ]
    cut = data.draw(st.integers(0, len(stacks)))
    named = data.draw(st.lists(st.integers(0, len(stacks) + 1), max_size=30))  # 0 and beyond the last: lost
    owners = [stacks[number - 1][1] if 0 < number <= len(stacks) else WEB for number in named]
    rows = [sample(key, stack_id=number, ts_ns=i) for i, (key, number) in enumerate(zip(owners, named, strict=True))]
    window = close(samples_of(*data.draw(st.permutations(rows))), batch_of(*stacks[:cut]), batch_of(*stacks[cut:]))
    assert window.samples["ts_ns"].tolist() == list(range(len(named)))
    assert window.samples["weight_ns"].sum() == len(named) * (1_000_000_000 // NODE.sample_hz)
    assert window.counters.keys() <= COUNTERS.keys()
    assert len(window.stacks) == len(set(named))
    assert len(window.stacks.offsets) == len(window.stacks) + 1
    assert window.stacks.offsets[-1] == len(window.stacks.addresses)
    for row, (key, number) in enumerate(zip(owners, named, strict=True)):
        assert process_of(window, row) == key
        if 0 < number <= len(stacks):
            _, owner, kernel, user, end = stacks[number - 1]
            assert stack_of(window, row) == (kernel, user, None if end == UserEnd.NONE else owner, end)
        else:
            assert stack_of(window, row) == ((), (), None, UserEnd.LOST)


def test_process_keys_are_distinct():
    rows = samples_of(sample(WEB), sample(KTHREAD), sample(WEB, tid=101))
    assert sorted(process_keys(rows)) == [KTHREAD, WEB]
    assert process_keys(samples_of()) == []


def test_only_the_first_user_address_asks_for_new_mappings(mappings):
    far = 0x9000_0000
    inside = (1, WEB, (far,), (CODE, far), UserEnd.FRAME_POINTER)  # far away in the kernel part and as a caller
    assert uncovered_processes([batch_of(inside, kernel_stack(2, far))], mappings) == []
    outside = (3, WEB, (CODE,), (far, CODE), UserEnd.FRAME_POINTER)
    assert uncovered_processes([batch_of(inside, outside)], mappings) == [WEB]


def test_a_process_is_uncovered_once_however_many_batches_show_it(mappings):
    other = (200, 1, 1)
    mappings.add(other, 8)
    stacks = [user_stack(1, 0x9000_0000), user_stack(2, CODE), user_stack(3, 0x9000_0000, owner=other)]
    assert sorted(uncovered_processes([batch_of(*stacks), batch_of(), batch_of(*stacks)], mappings)) == [WEB, other]


def test_a_process_whose_mappings_were_never_read_is_not_asked_for_again(mappings):
    assert uncovered_processes([batch_of(user_stack(1, CODE, owner=(300, 1, 1)))], mappings) == []
