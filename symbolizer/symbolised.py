"""The symbolised window: a window whose stacks are lists of frames.

A *location* is (build ID, file offset); resolving it gives one frame, or several where calls were inlined.
Frame and stack ids are content hashes, equal on every node and after every restart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from profiler.window import Window

# One row a frame; a location with inlined calls has one row per inline depth (0 = the innermost function).
FRAMES = pa.schema(
    [
        pa.field("frame_id", pa.int64(), nullable=False),  # hash of (kind, build, rel_addr)
        pa.field("build_id", pa.string(), nullable=False),  # "" where the file has none
        pa.field("rel_addr", pa.int64(), nullable=False),  # file offset; kernel: distance from _stext or module base
        pa.field("kind", pa.string(), nullable=False),  # "user", "kernel" or "synthetic"
        pa.field("module", pa.string(), nullable=False),  # base name of the file; "kernel", "[name]" of a kernel module
        pa.field("function", pa.string(), nullable=False),  # demangled; "" when unknown, then `state` says why
        pa.field("system_name", pa.string(), nullable=False),  # as in the symbol table
        pa.field("file", pa.string(), nullable=False),  # "" when unknown
        pa.field("line", pa.int32(), nullable=False),  # 0 when unknown
        pa.field("inline_idx", pa.int16(), nullable=False),
        pa.field("state", pa.string(), nullable=False),  # "ok", or the reason why there is no name
    ]
)


@dataclass(frozen=True)
class SymbolisedWindow:
    """A window, its distinct frames, and for each row of `window.stacks` its id and its frames.

    Row `i` of the stacks has the frames `stack_frame_ids[stack_offsets[i]:stack_offsets[i + 1]]`, leaf first.
    """

    window: Window
    frames: pa.Table  # FRAMES, distinct
    stack_ids: npt.NDArray[np.int64]  # (n_stacks,) hash of the frame ids
    stack_offsets: npt.NDArray[np.int64]  # (n_stacks + 1,)
    stack_frame_ids: npt.NDArray[np.int64]  # (stack_offsets[-1],)
