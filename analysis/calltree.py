"""Weighted stacks to a call tree in columns, the form that every flame graph and folded file is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CallTree:
    """A call tree in pre-order: row 0 is the root, a parent stands before its children.

    Siblings are sorted by name, so that equal profiles give equal trees. `self_value` sums to `total_value[0]`.
    """

    unit: str  # "ns"
    parent: npt.NDArray[np.int32]  # (n,) row of the parent; -1 for the root
    depth: npt.NDArray[np.int32]  # (n,) 0 for the root
    name: npt.NDArray[np.int32]  # (n,) row in `names`
    self_value: npt.NDArray[np.int64]  # (n,) in `unit`
    total_value: npt.NDArray[np.int64]  # (n,)
    samples: npt.NDArray[np.int64]  # (n,) samples at or below the node
    names: tuple[str, ...]  # what the frame is called: function, or module+0x… where there is none
    modules: tuple[str, ...]  # (len(names),) module of the name, "" for the root and the workload level
    kinds: tuple[str, ...]  # (len(names),) "root", "workload", "user", "kernel" or "synthetic"
    states: tuple[str, ...]  # (len(names),) "ok", or why the frame has no function name
