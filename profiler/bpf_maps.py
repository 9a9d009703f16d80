"""Hash maps of loaded programs, read and pruned in bulk: one system call for thousands of entries.

Array maps are memory (`profiler.loader.Loaded.map_array`) and need none of this. Kernel limits: batches since 5.6.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os

import numpy as np
import numpy.typing as npt


def take_hash(
    fd: int, key: np.dtype[np.void], value: np.dtype[np.void], max_entries: int
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
    """Return all (keys, values) of the hash map, in no order, and delete them.

    A program that has just looked an entry up may still add to it; what it adds in these nanoseconds is lost.
    """
    keys, values = np.zeros(max_entries, key), np.zeros(max_entries, value)
    count = ct.c_uint32(max_entries)
    position = ct.create_string_buffer(max(key.itemsize, 8))
    result = _LIB.bpf_map_lookup_and_delete_batch(
        fd, None, position, ct.c_void_p(keys.ctypes.data), ct.c_void_p(values.ctypes.data), ct.byref(count), None
    )
    if result < 0 and ct.get_errno() != errno.ENOENT:  # ENOENT: the end was reached
        raise OSError(ct.get_errno(), f"map cannot be read: {os.strerror(ct.get_errno())}")
    return keys[: count.value].copy(), values[: count.value].copy()


def delete_keys(fd: int, keys: npt.NDArray[np.generic]) -> None:
    """Delete the keys that are there."""
    for key in np.ascontiguousarray(keys):
        raw = ct.create_string_buffer(key.tobytes(), key.nbytes)
        if _LIB.bpf_map_delete_elem(fd, raw) < 0 and ct.get_errno() != errno.ENOENT:
            raise OSError(ct.get_errno(), f"map entry cannot be deleted: {os.strerror(ct.get_errno())}")


_LIB = ct.CDLL("libbpf.so.1", use_errno=True)
