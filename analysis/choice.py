"""Names that a user gave to the cgroups they mean; a name that nothing has is refused with what there is.

An empty range refuses nothing: that there is no data yet says nothing about the name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from profiler.errors import BadInput
from storage.selection import Selection

_MAX_NAMED = 20  # a message is one line


def choose_cgroups(cgroups: pa.Table, selection: Selection) -> pa.Table:
    """Keep the cgroups of the selected workload and path or pattern; `BadInput` when a name or pattern fits none."""
    if not len(cgroups):
        return cgroups
    if selection.workload is not None:
        require_known("workload", selection.workload, cgroups["workload"].to_pylist())
        cgroups = cgroups.filter(pc.equal(cgroups["workload"], selection.workload))
    if selection.cgroup is not None:
        paths = pc.unique(cgroups["path"]).to_pylist()
        fitting = [path for path in paths if path == selection.cgroup or fnmatchcase(path, selection.cgroup)]
        if not fitting:
            require_known("cgroup", selection.cgroup, paths)
        cgroups = cgroups.filter(pc.is_in(cgroups["path"], pa.array(fitting, pa.string())))
    return cgroups


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not among the known ones, naming the closest first."""
    names = sorted(set(known))
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=3)
    shown = close + [other for other in names if other not in close]
    listed = ", ".join(_printable(other) for other in shown[:_MAX_NAMED]) or "none"
    more = f" and {len(shown) - _MAX_NAMED} more" if len(shown) > _MAX_NAMED else ""
    raise BadInput(f"unknown {what} '{_printable(name)}' in this range; known: {listed}{more}")


def _printable(name: str) -> str:
    """Names come from other people's containers: keep them on the line and out of the terminal's control."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
