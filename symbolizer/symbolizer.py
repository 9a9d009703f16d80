"""A window to a symbolised window: every address becomes a frame, known by name or with the reason why it is not.

Locations seen before come from a bounded cache, so a steady window costs milliseconds; only new ones touch files.
Nothing that a process maps or a file holds raises: it costs the names of its own frames. User addresses are resolved
with the files of this machine, by build ID also for windows from elsewhere; the kernel's only for this boot.

Limits: no lines and no inlined functions, so a location is one frame; no perf maps of JIT compilers. Tables are
cached by build ID, which whoever wrote a file chose: of two files that claim the same one, the first opened names
both.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from profiler.window import Build, Window
from symbolizer.builds import BuildSymbols, unknown_names
from symbolizer.files import VDSO
from symbolizer.framecache import FrameCache
from symbolizer.kernel import KernelSymbols
from symbolizer.locations import KERNEL_BASE, MAX_POSITION, POSITION_BITS, Place, locate
from symbolizer.numbering import Numbering, Source
from symbolizer.rows import foreign_kernel_places, hash_stacks, kernel_rows, outside_rows, synthetic_rows, user_rows
from symbolizer.symbolised import SymbolisedWindow

U64 = npt.NDArray[np.uint64]

FOREIGN_FILE = "file of another machine or boot without a build ID: whether it is here cannot be told"
RETRY_NS = 60 * 10**9  # after which a file that could not be opened is tried again: a new process may lead to it


class Symbolizer:
    """Resolves windows one after the other; not for use by several threads at once.

    Memory beyond a window's own is bounded by the cache limits; one symbol table may exceed its budget alone.
    """

    def __init__(
        self,
        kernel: KernelSymbols | None = None,
        table_cache_bytes: int = 12 << 20,
        frame_cache_entries: int = 1 << 15,
        frame_cache_bytes: int = 12 << 20,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._kernel = kernel or KernelSymbols(clock_ns=clock_ns)
        self._builds = BuildSymbols(table_cache_bytes)
        self._frames = FrameCache(frame_cache_entries, frame_cache_bytes)
        self._numbering = Numbering()
        self._clock_ns = clock_ns

    def symbolise(self, window: Window) -> SymbolisedWindow:
        """Resolve every address of a window; raises `BadInput` only for one beyond the limits of a location key."""
        if not self._numbering.has_room(len(window.builds) + 1):
            self._numbering = Numbering()
            self._frames.clear()
        now_ns = self._clock_ns()
        boot_id = window.node.boot_id
        numbers = [self._numbering.number_build(build, boot_id, now_ns) for build in window.builds]
        located = locate(window, np.array(numbers, np.uint64), self._number_kernel(window))
        keys, inverse = np.unique(located.keys, return_inverse=True)
        new = self._frames.missing(keys)
        if len(new):
            self._frames.add(new, self._resolve(new))
        frames = self._frames.take(keys)
        self._frames.trim()
        frame_ids = frames["frame_id"].to_numpy()
        stack_frame_ids = frame_ids[inverse]
        stack_ids = hash_stacks(stack_frame_ids, located.offsets)
        return SymbolisedWindow(window, _distinct(frames, frame_ids), stack_ids, located.offsets, stack_frame_ids)

    def _number_kernel(self, window: Window) -> int:
        boot_id = window.node.boot_id
        if boot_id != self._kernel.boot_id:
            return self._numbering.number_kernel(boot_id, 0)
        addresses = window.stacks.addresses
        self._kernel.refresh(addresses[addresses >= KERNEL_BASE])
        return self._numbering.number_kernel(boot_id, self._kernel.generation)

    def _resolve(self, keys: U64) -> pa.Table:
        """Resolve sorted keys, one source after the other."""
        numbers, firsts = np.unique(keys >> np.uint64(POSITION_BITS), return_index=True)
        positions = np.split(keys & np.uint64(MAX_POSITION), firsts[1:])
        return pa.concat_tables(
            self._resolve_source(number, part) for number, part in zip(numbers.tolist(), positions, strict=True)
        )

    def _resolve_source(self, number: int, positions: U64) -> pa.Table:
        if number == Place.SYNTHETIC:
            return synthetic_rows(positions)
        if number < Place.FIRST_FREE:
            return outside_rows(Place(number), positions)
        source = self._numbering[number]
        if source.build is not None:
            return self._resolve_build(source, source.build, positions)
        addresses = positions + np.uint64(KERNEL_BASE)
        if source.boot_id != self._kernel.boot_id:
            return kernel_rows(foreign_kernel_places(source.boot_id, addresses))
        return kernel_rows(self._kernel.resolve(addresses))

    def _resolve_build(self, source: Source, build: Build, file_offsets: U64) -> pa.Table:
        is_by_path = not build.build_id and (build.sources or build.path == VDSO)
        if is_by_path and source.boot_id != self._kernel.boot_id:
            return user_rows(build, file_offsets, unknown_names(len(file_offsets), FOREIGN_FILE))
        names = self._builds.resolve(build, file_offsets)
        if not names.is_final and source.retry_ns is None:
            source.retry_ns = self._clock_ns() + RETRY_NS
        return user_rows(build, file_offsets, names)


def _distinct(frames: pa.Table, frame_ids: npt.NDArray[np.int64]) -> pa.Table:
    """Keep one row an id: two locations may be one frame, such as kernel addresses that make no sense."""
    _, firsts = np.unique(frame_ids, return_index=True)
    return frames if len(firsts) == len(frame_ids) else frames.take(pa.array(np.sort(firsts)))
