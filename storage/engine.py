"""SQL over explicit lists of segments, in an embedded DuckDB; damaged segments are left out and named.

The SQL of `storage.queries` is portable (scan, filter, join, group, sum), so that another engine can stand here.
Nothing is ever written, nothing is downloaded, and each query has a connection of its own, because DuckDB's
connections are not thread-safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa

from profiler.errors import StoreUnavailable
from storage.schema import TABLES
from storage.segment import has_footer, is_sound
from storage.store import Store

Parameter = str | datetime
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "memory_limit": "1GB",
    "temp_directory": "",  # rather an error than a full disk
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_ATTEMPTS = 3  # files may go, or break, between the check and the scan


class Scan:
    """The segments of one answer; remembers which ones had to be left out."""

    def __init__(self, store: Store, since_ns: int, until_ns: int, node: str | None = None) -> None:
        self.store, self.since_ns, self.until_ns, self.node = store, since_ns, until_ns, node
        self._bad: set[Path] = set()

    @property
    def bad_segments(self) -> tuple[str, ...]:
        """Damaged segments met so far, relative to the store."""
        return tuple(sorted(self.store.relative(path) for path in self._bad))

    def query(
        self,
        sql: str,
        tables: Sequence[str],
        parameters: Sequence[Parameter] = (),
        given: Mapping[str, pa.Table] | None = None,
        segments: Mapping[str, Sequence[Path]] | None = None,
    ) -> pa.Table:
        """Run SQL over tables of the store and `given` ones; `segments` names the files where the range does not."""
        given, segments = given or {}, segments or {}
        paths = {name: segments[name] if name in segments else self._in_range(name) for name in tables}
        for _ in range(_ATTEMPTS):
            readable = {name: self.readable(listed) for name, listed in paths.items()}
            try:
                return _run(sql, readable, parameters, given)
            except duckdb.Error as error:
                _database.cache_clear()  # some errors end the database for good; the next attempt gets a fresh one
                if not self._exclude_damaged(readable):
                    raise StoreUnavailable(f"cannot read {self.store.root}: {_first_line(error)}") from error
        raise StoreUnavailable(f"segments of {self.store.root} keep changing while they are read: try again")

    def readable(self, paths: Sequence[Path]) -> list[Path]:
        """Leave out what is damaged at first sight, and remember it."""
        good: list[Path] = []
        for path in paths:
            if path in self._bad:
                continue
            try:
                is_good = has_footer(path)
            except FileNotFoundError:  # replaced or expired since it was listed: gone, not damaged
                continue
            if is_good:
                good.append(path)
            else:
                self._bad.add(path)
        return good

    def _in_range(self, table: str) -> list[Path]:
        return self.store.segments(table, self.since_ns, self.until_ns, self.node)

    def _exclude_damaged(self, readable: Mapping[str, Sequence[Path]]) -> bool:
        """Read every file to its end to find out which made the engine fail."""
        damaged = {path for paths in readable.values() for path in paths if not is_sound(path)}
        self._bad |= {path for path in damaged if path.exists()}
        return bool(damaged)


def _run(
    sql: str, segments: Mapping[str, Sequence[Path]], parameters: Sequence[Parameter], given: Mapping[str, pa.Table]
) -> pa.Table:
    with _database().cursor() as cursor:  # a connection of its own; its views are temporary and nobody else's
        for name, rows in given.items():
            cursor.register(name, rows)
        for name, paths in segments.items():
            if paths:
                cursor.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM {_read_parquet(name, paths)}")
            else:
                cursor.register(name, TABLES[name].schema.empty_table())
        return cursor.sql(sql, params=list(parameters)).to_arrow_table()


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    """One empty database a process, so that its memory limit holds for all threads; making one takes 17 ms."""
    return duckdb.connect(":memory:", config=_SETTINGS)


def _read_parquet(table: str, paths: Sequence[Path]) -> str:
    quoted = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    by_name = "true" if table == "nodes" else "false"  # counters are added from version to version; reads every footer
    return f"read_parquet([{quoted}], hive_partitioning = false, union_by_name = {by_name})"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
