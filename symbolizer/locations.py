"""The addresses of a window to location keys, without Python for any single address.

A key is 64 bits: the number of a build in its upper 16, the position in the build in its lower 48. Positions are file
offsets in files, and addresses in the kernel and where no mapping is known. Callers are looked up one byte before
their return address, so that a call in a function's last instruction still names that function.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from profiler.errors import BadInput
from profiler.window import Stacks, UserEnd, Window

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

POSITION_BITS = 48
MAX_POSITION = (1 << POSITION_BITS) - 1  # positions beyond are no code that can exist; they meet here
KERNEL_BASE = (1 << 64) - (1 << POSITION_BITS)

_PAGE_BITS = 12  # mappings start at pages: 45 bits of page number leave room for the process in one sort key
_PAGE_NUMBER_BITS = 57 - _PAGE_BITS
MAX_PROCESSES = 1 << (62 - _PAGE_NUMBER_BITS)


class Place(IntEnum):
    """Numbers below those of builds: what is not in a file."""

    SYNTHETIC = 0  # position is a `UserEnd`
    UNMAPPED = 1  # position is the address, as for the next
    PROCESS_GONE = 2
    FIRST_FREE = 3


@dataclass(frozen=True)
class Locations:
    """Location keys of every frame of every stack, synthetic ones included."""

    keys: U64
    offsets: npt.NDArray[np.int64]  # (n_stacks + 1,)


def locate(window: Window, build_numbers: U64, kernel_number: int) -> Locations:
    """Turn addresses into keys; `build_numbers` has one element a row of `window.builds`."""
    stacks = window.stacks
    rows, is_kernel, addresses = look_up_addresses(stacks)
    keys = np.empty(len(addresses), np.uint64)
    kernel = np.maximum(addresses[is_kernel], np.uint64(KERNEL_BASE)) - np.uint64(KERNEL_BASE)
    keys[is_kernel] = _keys(np.full(len(kernel), kernel_number, np.uint64), kernel)
    is_user = ~is_kernel
    keys[is_user] = _user_keys(window, stacks.process[rows[is_user]], addresses[is_user], build_numbers)
    return _with_synthetic(stacks, keys)


def look_up_addresses(stacks: Stacks) -> tuple[npt.NDArray[np.int64], Mask, U64]:
    """Return for each address its stack, whether it is the kernel's, and the address to look up."""
    depths = np.diff(stacks.offsets)
    rows = np.repeat(np.arange(len(stacks)), depths)
    level = np.arange(len(stacks.addresses)) - np.repeat(stacks.offsets[:-1], depths)
    kernel_depth = stacks.kernel_depth[rows]
    is_exact = (level == 0) | (level == kernel_depth)
    is_caller = ~is_exact & (stacks.addresses > 0)
    return rows, level < kernel_depth, stacks.addresses - is_caller.astype(np.uint64)


def _user_keys(window: Window, process: npt.NDArray[np.int32], addresses: U64, build_numbers: U64) -> U64:
    mappings = window.mappings
    if len(window.processes) > MAX_PROCESSES:
        raise BadInput(f"window of {len(window.processes)} processes, at most {MAX_PROCESSES}; make windows shorter")
    mapped = np.bincount(mappings["process"], minlength=len(window.processes) + 1) > 0  # [-1]: no process at all
    numbers = np.where(mapped[process], int(Place.UNMAPPED), int(Place.PROCESS_GONE)).astype(np.uint64)
    keys = _keys(numbers, addresses)
    if not len(mappings):
        return keys
    at = _page_keys(mappings["process"], mappings["start"])
    found = mappings[np.searchsorted(at, _page_keys(process, addresses), "right") - 1]
    is_hit = (found["process"] == process) & (addresses >= found["start"]) & (addresses < found["end"])
    found = found[is_hit]
    file_offsets = addresses[is_hit] - found["start"] + found["file_offset"]
    keys[is_hit] = _keys(build_numbers[found["build"]], file_offsets)
    return keys


def _keys(numbers: U64, positions: U64) -> U64:
    return (numbers << np.uint64(POSITION_BITS)) | np.minimum(positions, np.uint64(MAX_POSITION))


def _page_keys(process: npt.NDArray[np.int32], addresses: U64) -> npt.NDArray[np.int64]:
    pages = np.minimum(addresses >> np.uint64(_PAGE_BITS), np.uint64((1 << _PAGE_NUMBER_BITS) - 1))
    keys: npt.NDArray[np.int64] = (process.astype(np.int64) << _PAGE_NUMBER_BITS) | pages.astype(np.int64)
    return keys


def _with_synthetic(stacks: Stacks, keys: U64) -> Locations:
    """Add one frame at the root end of stacks that are not what they should be."""
    depths = np.diff(stacks.offsets)
    ends = stacks.user_end.astype(np.uint64)
    # A stack without any address is lost, whatever its end says; it must not count for nobody.
    ends = np.where((depths == 0) & (ends != UserEnd.FAILED), np.uint64(UserEnd.LOST), ends)
    is_synthetic = np.isin(ends, (UserEnd.TRUNCATED, UserEnd.FAILED, UserEnd.LOST))
    offsets = stacks.offsets + np.append(0, np.cumsum(is_synthetic))
    out = np.empty(int(offsets[-1]), np.uint64)
    root_ends = offsets[1:][is_synthetic] - 1
    is_address = np.ones(len(out), np.bool_)
    is_address[root_ends] = False
    out[is_address] = keys
    out[root_ends] = _keys(np.full(len(root_ends), int(Place.SYNTHETIC), np.uint64), ends[is_synthetic])
    return Locations(out, offsets)
