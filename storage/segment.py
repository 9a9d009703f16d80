"""One segment, that is one Parquet file: how it is named, written, published and checked.

A segment is written as `_<name>.tmp`, synced, then renamed, so that nobody ever sees half of one: a single truncated
Parquet file fails a whole query in DuckDB and in pyarrow alike. The name is a ULID of the window's start, so that
names sort by time and a reader can leave files out without opening them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from ulid import ULID

from profiler.window import COUNTERS
from storage.schema import TABLES, Table

SUFFIX = ".parquet"
NS_PER_MS = 1_000_000
_MAGIC = b"PAR1"
_SMALLEST_BYTES = 12  # magic, footer length, magic
_ULID_TIME_CHARS = 10
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_MS_LIMIT = 1 << 48


def segment_name(window_start_ns: int) -> str:
    """Name the segments of a window: all tables of one window share the name."""
    ms = window_start_ns // NS_PER_MS
    return str(ULID.from_bytes(ms.to_bytes(6, "big") + os.urandom(10)))


def name_bound(ns: int) -> str:
    """Give the smallest text that is not above any segment name of this millisecond or later."""
    ms = min(max(ns // NS_PER_MS, 0), _ULID_MS_LIMIT - 1)
    return "".join(_CROCKFORD[(ms >> shift) & 31] for shift in range(5 * (_ULID_TIME_CHARS - 1), -1, -5))


def name_ms(name: str) -> int:
    """Give the start of the window that a segment is named for, in Unix ms."""
    return int(ULID.from_str(name).milliseconds)


def temporary_path(folder: Path, name: str) -> Path:
    """Where a segment is written before it is published."""
    return folder / f"_{name}.tmp"


def write_segment(rows: pa.Table, table: Table, path: Path) -> None:
    """Write sorted rows to a file and sync it; raises `OSError`."""
    with path.open("wb") as file:
        pq.write_table(
            rows,
            file,
            compression="zstd",
            compression_level=3,
            row_group_size=131_072,
            write_page_checksum=True,  # what `is_sound` verifies: without it a flipped bit may decode to other numbers
            # No page index: a segment has one page a column, and the index would only make its footer longer.
            sorting_columns=pq.SortingColumn.from_ordering(table.schema, [(name, "ascending") for name in table.sort]),
            **_encodings(table),
        )
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def has_footer(path: Path) -> bool:
    """Tell cheaply whether a file ends as a Parquet file does; catches every truncation. Raises `FileNotFoundError`."""
    stat = path.stat()
    return _has_footer(str(path), stat.st_size, stat.st_mtime_ns)


def is_sound(path: Path) -> bool:
    """Read a file to its end against its page checksums and the columns of its table, which names its folder.

    A file that is gone is not sound. Parquet has no checksum over its footer, so there a flipped bit may stay unseen.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return _is_sound(str(path), stat.st_size, stat.st_mtime_ns)


# Segments never change once published, so what was found holds as long as size and mtime do.
@lru_cache(maxsize=100_000)
def _has_footer(path: str, size_bytes: int, mtime_ns: int) -> bool:
    if size_bytes < _SMALLEST_BYTES:
        return False
    try:
        with open(path, "rb") as file:
            file.seek(-8, os.SEEK_END)
            tail = file.read(8)
    except FileNotFoundError:
        raise
    except OSError:  # a directory of that name, or not ours to read: either way not a segment that can be asked
        return False
    return tail[4:] == _MAGIC and int.from_bytes(tail[:4], "little") <= size_bytes - _SMALLEST_BYTES


@lru_cache(maxsize=100_000)
def _is_sound(path: str, size_bytes: int, mtime_ns: int) -> bool:
    try:
        rows = pq.ParquetFile(path, page_checksum_verification=True).read()
        types = {field.name: field.type for field in rows.schema}
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # the last: a flipped bit in the name of a column
        return False
    table = TABLES[Path(path).parent.name]
    # A segment of an older agent may lack counters that are younger than it.
    return all(
        types.get(field.name, field.type if field.name in COUNTERS else None) == field.type for field in table.schema
    )


def _encodings(table: Table) -> dict[str, object]:
    """Delta encoding for the raw time stamps alone, where it halves the table; no dictionaries for a single row."""
    if table.name != "samples_raw":
        return {"use_dictionary": table.name != "nodes"}
    return {
        "use_dictionary": [name for name in table.schema.names if name != "ts"],
        "column_encoding": {"ts": "DELTA_BINARY_PACKED"},
    }
