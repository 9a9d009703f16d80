"""Sums by stack id to stacks of named frames, inlined calls spread out.

A stack or frame whose row was lost with a damaged segment stays in the answer under a name that says so:
CPU time that was measured is never dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.calltree import FrameNames, Rows, WeightedStacks
from storage.engine import Scan
from storage.queries import read_frames, read_stacks
from symbolizer.rows import PLACELESS_MODULES

_LOST = FrameNames(
    names=("(frame lost)", "(stack lost)"),
    modules=("", ""),
    kinds=("synthetic", "synthetic"),
    states=("its segment is damaged", "its segment is damaged"),
)


def resolve_sums(scan: Scan, sums: pa.Table) -> WeightedStacks:
    """Give each row (workload, service_class, stack_id, value, count) its frames."""
    wanted = np.asarray(sums["stack_id"], np.int64)
    ids, offsets, frame_ids = _stack_columns(read_stacks(scan, wanted))
    frames = read_frames(scan, frame_ids)
    names = frame_names(frames)
    locations, first, depth = np.unique(np.asarray(frames["frame_id"], np.int64), return_index=True, return_counts=True)
    # One location more for frames that are missing, and one stack more, of one frame, for stacks that are.
    flat, flat_offsets = _spread(np.append(first, len(names)), np.append(depth, 1), _find(locations, frame_ids))
    bounds = flat_offsets[offsets]
    start, length = np.append(bounds[:-1], len(flat)), np.append(np.diff(bounds), 1)
    rows, row_offsets = _spread(start, length, _find(ids, wanted))
    workload = _contiguous(sums["workload"]).dictionary_encode()
    return WeightedStacks(
        workload=np.asarray(workload.indices, np.int64),
        offsets=row_offsets,
        frames=np.append(flat, len(names) + 1)[rows],
        value_ns=np.asarray(sums["value"], np.int64),
        samples=np.asarray(sums["count"], np.int64),
        workloads=tuple(workload.dictionary.to_pylist()),
        frame_names=names + _LOST,
    )


def frame_names(frames: pa.Table) -> FrameNames:
    """Name each frame: its function, else module+0x<address>, else why the address belongs to no module."""
    columns = (frames[name].to_pylist() for name in ("function", "module", "rel_addr"))
    return FrameNames(
        names=tuple(
            function or (module if module in PLACELESS_MODULES else f"{module}{addr:+#x}")
            for function, module, addr in zip(*columns, strict=True)
        ),
        modules=tuple(frames["module"].to_pylist()),
        kinds=tuple(frames["kind"].to_pylist()),
        states=tuple(frames["state"].to_pylist()),
    )


def _stack_columns(stacks: pa.Table) -> tuple[Rows, Rows, Rows]:
    lists = _contiguous(stacks["frame_ids"])
    offsets = np.asarray(lists.offsets, np.int64)
    values = np.asarray(lists.values, np.int64)[offsets[0] : offsets[-1]]
    return np.asarray(stacks["stack_id"], np.int64), offsets - offsets[0], values


def _contiguous(column: pa.ChunkedArray[Any]) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _find(sorted_ids: Rows, wanted: Rows) -> Rows:
    """Row of each wanted id; `len(sorted_ids)` for ids that are not there."""
    row = np.searchsorted(sorted_ids, wanted)
    found = np.append(sorted_ids, 0)[row] == wanted
    return np.where(found & (row < len(sorted_ids)), row, len(sorted_ids))


def _spread(first: Rows, length: Rows, chosen: Rows) -> tuple[Rows, Rows]:
    """Concatenate the runs `first[i] .. first[i] + length[i]` of the chosen rows; gives row numbers and offsets."""
    lengths = length[chosen]
    offsets: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return np.repeat(first[chosen], lengths) + within, offsets
