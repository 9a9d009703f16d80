"""A directory to the lists of segments that a time range needs; knows names and places, opens no Parquet.

    <root>/FORMAT.json
    <root>/l0/<node>/<table>/<ulid>.parquet    one segment a window and table
    <root>/trash/bad/<node>/<table>/           damaged segments, moved aside by the node's writer

A window is *complete* when its `nodes` segment is there, which is published last. Readers leave the samples and
delays of incomplete windows out. All segments of a window share a name, so that takes directory listings only.

Refuses a directory that holds something else, and a store of a newer format.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from profiler.errors import BadInput, StoreUnavailable
from storage.schema import FORMAT_VERSION
from storage.segment import SUFFIX, name_bound, name_ms, sync_folder

NS_PER_HOUR = 3_600_000_000_000
_FORMAT_FILE = "FORMAT.json"
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_SEGMENT_FILE = re.compile(rf"[0-7][0-9A-HJKMNP-TV-Z]{{25}}{re.escape(SUFFIX)}")
# Tables whose rows count only with the window's `nodes` row.
WINDOW_TABLES = ("samples_10s", "samples_raw", "sched_delay", "interference")


@dataclass(frozen=True)
class Store:
    """An opened store; `open` is the way to get one."""

    root: Path

    @classmethod
    def open(cls, path: Path | str, create: bool = False) -> Self:
        """Open a store to read, or with `create` make one where there is none; `StoreUnavailable` says why not."""
        root = Path(path).absolute()
        if has_format(root):
            _check_format(root / _FORMAT_FILE)
        elif create:
            _create(root)
        else:
            raise StoreUnavailable(
                f"no coprof store at {root}: start an agent on it first, or name another with --store"
            )
        return cls(root)

    def node_folder(self, node: str) -> Path:
        """Where the segments of a node are; refuses names that cannot be a folder's."""
        require_node_name(node)
        return self.root / "l0" / node

    def trash_folder(self, node: str) -> Path:
        """Where damaged segments of a node are kept."""
        return self.root / "trash" / "bad" / node

    def node_names(self) -> tuple[str, ...]:
        """Every node that has written to the store."""
        return tuple(name for name in _listed(self.root / "l0") if _NODE_NAME.fullmatch(name))

    def window_segments(self, node: str) -> list[Path]:
        """The `nodes` segments of a node, that is its complete windows, oldest first."""
        return _segments(self.node_folder(node) / "nodes")

    def newest_window_ns(self) -> int | None:
        """Return when the newest window of any node started, to the millisecond; None for an empty store."""
        newest = [segments[-1] for node in self.node_names() if (segments := self.window_segments(node))]
        return max((name_ms(path.stem) * 1_000_000 for path in newest), default=None)

    def segments(self, table: str, since_ns: int, until_ns: int, node: str | None = None) -> list[Path]:
        """List the segments of a table that windows starting in `[since_ns, until_ns)` need.

        For tables of definitions (stacks, frames, builds, cgroups) the list begins with the hour: a writer stores
        a definition once an hour, in the segment of the first window that used it.
        """
        nodes = self.node_names() if node is None else (node,)
        return [path for name in nodes for path in self._node_segments(table, since_ns, until_ns, name)]

    def _node_segments(self, table: str, since_ns: int, until_ns: int, node: str) -> Iterator[Path]:
        is_definition = table not in (*WINDOW_TABLES, "nodes")
        first = since_ns // NS_PER_HOUR * NS_PER_HOUR if is_definition else since_ns
        low, high = name_bound(first), name_bound(until_ns - 1) + "~"  # "~" sorts above every character of a ULID
        folder = self.node_folder(node)
        # Listed before the samples: whatever is named here has all its other segments already.
        complete = {path.name for path in _segments(folder / "nodes")} if table in WINDOW_TABLES else None
        for path in _segments(folder / table):
            if low <= path.name < high and (complete is None or path.name in complete):
                yield path

    def relative(self, path: Path) -> str:
        """Name a segment as messages do."""
        return str(path.relative_to(self.root))


def require_node_name(node: str) -> None:
    """Refuse names that cannot be a folder's."""
    if not _NODE_NAME.fullmatch(node):
        raise BadInput(f"node name {node!r} cannot name a folder: use letters, digits, '.', '_' and '-'")


def _segments(folder: Path) -> list[Path]:
    return [folder / name for name in _listed(folder) if _SEGMENT_FILE.fullmatch(name)]


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreUnavailable(f"cannot list {folder}: {error.strerror}; check the rights of this user") from error


def has_format(root: Path) -> bool:
    """Tell whether a directory is a store, of whatever version."""
    try:
        return (root / _FORMAT_FILE).exists()
    except OSError as error:
        raise StoreUnavailable(f"cannot open {root}: {error.strerror}; check the rights of this user") from error


def _check_format(file: Path) -> None:
    try:
        version = json.loads(file.read_bytes())["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreUnavailable(f"cannot read {file}: {error}; restore it, or name another store") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreUnavailable(
            f"{file.parent} has format {version!r}, this coprof reads up to {FORMAT_VERSION}: use a newer coprof"
        )


def _create(root: Path) -> None:
    temporary = root / f"_{_FORMAT_FILE}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        # "lost+found" is in a file system that was made for the store, the other is left by a crash right here.
        if {entry.name for entry in root.iterdir()} - {"lost+found", temporary.name}:
            raise StoreUnavailable(f"{root} is not empty and not a coprof store: name an empty directory with --store")
        with temporary.open("w") as file:
            json.dump({"format": "coprof", "version": FORMAT_VERSION}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(root / _FORMAT_FILE)
        sync_folder(root)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreUnavailable(
            f"cannot create a store at {root}: {error.filename} is not a directory; name another path"
        ) from error
    except OSError as error:
        raise StoreUnavailable(
            f"cannot create a store at {root}: {error.strerror}; check the rights of this user and the free space"
        ) from error
