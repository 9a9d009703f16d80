"""Which part of a store is asked for; means the same in every command, page and query."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """A time range and filters; `None` means no filter. Times are Unix ns, the range is half open."""

    since_ns: int
    until_ns: int
    workload: str | None = None
    cgroup: str | None = None  # path inside the hierarchy, or a shell pattern over it
    node: str | None = None
    kind: str = "cpu"
