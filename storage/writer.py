"""Symbolised windows to published segments of one node, all of a window or nothing.

The tables of a window are published in the order of `schema.TABLES`: definitions, samples, delays, and `nodes` last,
after the folders of the others are synced. The `nodes` row is what makes a window count, so a crash at any point
leaves either a complete window or one that no reader takes.

Definitions (frames, stacks, builds, cgroups) are written once per UTC hour of the window start, so that an hour can
be compacted alone. What was written is remembered only after the window was published; after a restart, and for a
window older than the last one, everything is written again and readers drop the duplicates.

A store that was removed under its writer is made again, for what comes from then on.

Refuses a second writer of the same node.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from profiler.errors import BadInput, StoreUnavailable
from profiler.window import Window
from storage.rows import (
    AgentCost,
    build_rows,
    cgroup_rows,
    delay_rows,
    interference_rows,
    node_row,
    sample_rows,
    sample_sums,
    stack_rows,
)
from storage.schema import FRAMES_TABLE, TABLES
from storage.segment import (
    SUFFIX,
    is_sound,
    segment_name,
    sync_folder,
    temporary_path,
    write_segment,
)
from storage.store import NS_PER_HOUR, WINDOW_TABLES, Store
from symbolizer.symbolised import SymbolisedWindow

Keys = npt.NDArray[np.int64]

_LOCK_FILE = "_writer.lock"
_CHECKED_ON_START = 12  # newest windows whose segments are read to the end: older ones were long on disk at a crash
_OK = pa.scalar("ok", pa.string())  # a bare "ok" has its type inferred, for which Arrow looks for dateutil every time
_DEFINITIONS = ("frames", "stacks", "builds", "cgroups")


@dataclass
class _Hour:
    """What definitions an hour of this node has already."""

    start_ns: int = -1
    last_window_ns: int = -1
    written: dict[str, Keys] = field(default_factory=lambda: {table: np.zeros(0, np.int64) for table in _DEFINITIONS})


class StoreWriter:
    """The one writer of a node's segments. Not thread-safe; close it, or use it in a `with` block."""

    def __init__(self, store: Store, node_name: str) -> None:
        """Take the node's lock, then clear what a crash left: temporary files go, damaged segments are moved aside."""
        self._store = store
        self._node_name = node_name
        self._folder = store.node_folder(node_name)
        self._lock = -1
        self.is_refusing = False  # the last window was not taken
        self._settle()

    def append(self, symbolised: SymbolisedWindow, cost: AgentCost) -> None:
        """Publish a window; after `StoreUnavailable` nothing of it is visible and the next append stands alone."""
        window = symbolised.window
        if window.node.name != self._node_name:
            raise BadInput(f"window of node {window.node.name!r} given to the writer of {self._node_name!r}")
        self.is_refusing = True
        if not self._is_settled():
            self._settle()
        hour = self._hour_of(window.start_ns)
        tables = _window_tables(symbolised, cost)
        keys = {table: _definition_keys(table, tables[table]) for table in _DEFINITIONS}
        for table, row_keys in keys.items():
            is_new = np.isin(row_keys, hour.written[table], invert=True)
            tables[table] = tables[table].filter(pa.array(is_new))
        self._publish(segment_name(window.start_ns), tables)
        for table, row_keys in keys.items():
            hour.written[table] = np.union1d(hour.written[table], row_keys)
        hour.last_window_ns = window.start_ns
        self._hour = hour
        self.is_refusing = False

    def close(self) -> None:
        """Give the node's lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self) -> None:
        """Make what is missing of the store and of our folders, take the lock, and begin with no definition written."""
        Store.open(self._store.root, create=True)
        try:
            for table in TABLES:
                (self._folder / table).mkdir(parents=True, exist_ok=True)
            if not self._holds_lock():
                lock = _lock(self._folder / _LOCK_FILE, self._node_name)
                self.close()
                self._lock = lock
            self.moved_segments = self._clear()
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write to {self._folder}: {error.strerror}; check the rights of this user and the free space"
            ) from error
        self._hour = _Hour()

    def _is_settled(self) -> bool:
        return self._holds_lock() and all((self._folder / table).is_dir() for table in TABLES)

    def _holds_lock(self) -> bool:
        """Tell whether the lock file that we hold is the one that others find."""
        if self._lock < 0:
            return False
        try:
            return os.path.samestat((self._folder / _LOCK_FILE).stat(), os.fstat(self._lock))
        except OSError:  # gone, or the disk fails: making it again says how
            return False

    def _hour_of(self, start_ns: int) -> _Hour:
        """The definitions that readers of this window will find: those of earlier windows of its hour."""
        start_of_hour_ns = start_ns // NS_PER_HOUR * NS_PER_HOUR
        if self._hour.start_ns == start_of_hour_ns and start_ns >= self._hour.last_window_ns:
            return self._hour
        return _Hour(start_of_hour_ns)

    def _publish(self, name: str, tables: dict[str, pa.Table]) -> None:
        folders = {table: self._folder / table for table in TABLES if len(tables[table]) or table == "nodes"}
        touched: list[Path] = []
        try:
            for table, folder in folders.items():
                touched.append(temporary_path(folder, name))
                write_segment(tables[table], TABLES[table], touched[-1])
            *others, last = folders.values()
            for batch in (others, [last]):
                for folder in batch:
                    touched.append(folder / (name + SUFFIX))
                    temporary_path(folder, name).rename(touched[-1])
                for folder in batch:
                    sync_folder(folder)
        except OSError as error:
            _take_back(touched)
            raise StoreUnavailable(
                f"cannot write a window to {self._folder}: {error.strerror}; free space or check the disk, "
                "writing goes on by itself"
            ) from error

    def _clear(self) -> tuple[str, ...]:
        """Delete temporary files; move damaged segments and those of incomplete windows to the trash, and name them."""
        for temporary in self._folder.glob("*/_*.tmp"):
            temporary.unlink()
        windows = self._store.window_segments(self._node_name)
        complete = {path.name for path in windows}
        checked_from = windows[-_CHECKED_ON_START:][0].name if windows else ""
        bad = []
        for table in TABLES:
            for path in (self._folder / table).glob(f"*{SUFFIX}"):
                is_orphan = table in WINDOW_TABLES and path.name not in complete
                if is_orphan or (path.name >= checked_from and not is_sound(path)):
                    bad.append(path)
        return tuple(self._move_to_trash(path) for path in sorted(bad))

    def _move_to_trash(self, path: Path) -> str:
        folder = self._store.trash_folder(self._node_name) / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
        sync_folder(folder)
        sync_folder(path.parent)
        return self._store.relative(path)


def _window_tables(symbolised: SymbolisedWindow, cost: AgentCost) -> dict[str, pa.Table]:
    window: Window = symbolised.window
    return {
        "frames": symbolised.frames.cast(FRAMES_TABLE.schema).sort_by([(k, "ascending") for k in FRAMES_TABLE.sort]),
        "stacks": stack_rows(symbolised),
        "builds": build_rows(window),
        "cgroups": cgroup_rows(window),
        "samples_10s": sample_sums(symbolised),
        "samples_raw": sample_rows(symbolised),
        "sched_delay": delay_rows(window),
        "interference": interference_rows(window),
        "nodes": node_row(window, cost),
    }


def _definition_keys(table: str, rows: pa.Table) -> Keys:
    """What makes a definition new: its id, and for those that may change later also what changes."""
    if table == "stacks":
        return np.asarray(rows["stack_id"], np.int64)
    if table == "frames":  # a frame that got its name later is written again
        has_name = pc.equal(rows["state"], _OK)
        return np.asarray(rows["frame_id"], np.int64) ^ np.asarray(has_name).astype(np.int64)
    columns = ("build_id", "path", "reason") if table == "builds" else ("cg", "workload", "service_class", "end")
    values = zip(*(rows[column].to_pylist() for column in columns), strict=True)
    return np.array([hash(value) for value in values], np.int64)


def is_written(root: Path) -> bool:
    """Tell whether a writer of any node is at work in the store right now; raises `OSError`."""
    for path in root.glob(f"l0/*/{_LOCK_FILE}"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def _lock(path: Path, node_name: str) -> int:
    """Hold a lock file until the process ends; unlike a pid file it cannot be left behind by SIGKILL."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StoreUnavailable(
            f"another coprof agent writes as node {node_name!r} to {path.parent}: stop it, or name another --store"
        ) from error
    return fd


def _take_back(paths: list[Path]) -> None:
    """Unlink what a failed publish left, the completing `nodes` segment first."""
    for path in reversed(paths):
        with suppress(OSError):  # the failure that led here is being reported; the next start clears the rest
            path.unlink(missing_ok=True)
