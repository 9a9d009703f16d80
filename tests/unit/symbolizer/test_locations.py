"""Addresses to location keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import BadInput
from profiler.window import Build, UserEnd
from symbolizer import locations
from symbolizer.locations import KERNEL_BASE, MAX_POSITION, POSITION_BITS, Place, locate, look_up_addresses

KERNEL = 5
FIRST_BUILD = 10


def parts(window):
    """(number, position) of every frame, stack by stack."""
    builds = np.arange(FIRST_BUILD, FIRST_BUILD + len(window.builds), dtype=np.uint64)
    found = locate(window, builds, KERNEL)
    rows = [(key >> POSITION_BITS, key & MAX_POSITION) for key in found.keys.tolist()]
    return [rows[a:b] for a, b in zip(found.offsets.tolist(), found.offsets[1:].tolist(), strict=False)]


def test_callers_are_looked_up_before_their_return_address(made):
    window = made.window([([100, 200], [300, 400], 0), ([], [500, 600], 0)])
    rows, is_kernel, addresses = look_up_addresses(window.stacks)
    assert addresses.tolist() == [100, 199, 300, 399, 500, 599]
    assert rows.tolist() == [0, 0, 0, 0, 1, 1]
    assert is_kernel.tolist() == [True, True, False, False, False, False]


def test_addresses_become_file_offsets_of_their_own_process(made):
    mappings = [(0, 0, 0x1000, 0x3000, 0x500), (1, 1, 0x1000, 0x3000, 0)]
    builds = [Build("", "/a"), Build("", "/b")]
    stacks = [([], [0x1010, 0x3000], 0), ([], [0x1010], 1), ([], [0x3000], 1)]
    window = made.window(stacks, mappings, builds, processes=2)
    assert parts(window) == [
        [(FIRST_BUILD, 0x510), (FIRST_BUILD, 0x24FF)],
        [(FIRST_BUILD + 1, 0x10)],
        [(Place.UNMAPPED, 0x3000)],
    ]


def test_no_mappings_of_a_process_is_not_the_same_as_outside_them(made):
    mappings = [(1, 0, 0x1000, 0x2000, 0)]
    stacks = [([], [0x1000], 0), ([], [0x9000], 1), ([], [0x9000], -1), ([], [(1 << 64) - 1], 1)]
    window = made.window(stacks, mappings, [Build("", "/a")], processes=2)
    gone, unmapped = (Place.PROCESS_GONE, 0x1000), (Place.UNMAPPED, 0x9000)
    assert parts(window) == [[gone], [unmapped], [(Place.PROCESS_GONE, 0x9000)], [(Place.UNMAPPED, MAX_POSITION)]]


def test_kernel_addresses_keep_their_low_48_bits(made):
    window = made.window([([KERNEL_BASE + 0x81000000, KERNEL_BASE + 5, 77], [], -1)])
    assert parts(window) == [[(KERNEL, 0x81000000), (KERNEL, 4), (KERNEL, 0)]]


@pytest.mark.parametrize(
    ("end", "frames"),
    [
        (UserEnd.NONE, []),
        (UserEnd.FRAME_POINTER, []),
        (UserEnd.TRUNCATED, [(Place.SYNTHETIC, UserEnd.TRUNCATED)]),
        (UserEnd.FAILED, [(Place.SYNTHETIC, UserEnd.FAILED)]),
        (UserEnd.LOST, [(Place.SYNTHETIC, UserEnd.LOST)]),
    ],
)
def test_what_is_missing_shows_at_the_root_end(made, end, frames):
    window = made.window([([KERNEL_BASE + 1], [], -1, end), ([KERNEL_BASE + 9], [], -1)])
    assert parts(window) == [[(KERNEL, 1), *frames], [(KERNEL, 9)]]


def test_a_stack_without_addresses_is_never_empty(made):
    ends = list(UserEnd)
    found = parts(made.window([([], [], 0, end) for end in ends]))
    expected = [UserEnd.FAILED if end == UserEnd.FAILED else UserEnd.LOST for end in ends]
    assert found == [[(Place.SYNTHETIC, end)] for end in expected]


def test_an_empty_window_has_no_keys(made):
    assert parts(made.window()) == []


def test_too_many_processes_are_refused(made, monkeypatch):
    monkeypatch.setattr(locations, "MAX_PROCESSES", 1)
    with pytest.raises(BadInput, match="window of 2 processes, at most 1"):
        parts(made.window([([], [1], 0)], processes=2))


pages = st.lists(st.integers(0, 40), unique=True, max_size=12).map(sorted)
processes = st.lists(pages, min_size=1, max_size=4)
queries = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 45 << 12)), min_size=1, max_size=30)


@given(processes, queries)
def test_mappings_are_found_as_a_plain_search_would(made, processes, queries):
    mappings = [
        (row, 0, page << 12, (page << 12) + 0xC00, page << 20) for row, pages in enumerate(processes) for page in pages
    ]
    queries = [(min(process, len(processes) - 1), address) for process, address in queries]
    stacks = [([], [address], process) for process, address in queries]
    window = made.window(stacks, mappings, [Build("", "/a")], processes=len(processes))
    for (process, address), (found,) in zip(queries, parts(window), strict=True):
        hits = [
            (FIRST_BUILD, address - start + offset)
            for owner, _, start, end, offset in mappings
            if owner == process and start <= address < end
        ]
        has_mappings = any(owner == process for owner, *_ in mappings)
        otherwise = (Place.UNMAPPED if has_mappings else Place.PROCESS_GONE, address)
        assert found == (hits[0] if hits else otherwise)
