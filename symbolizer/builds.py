"""File offsets of a build to function names, with the parsed symbol tables in a cache bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiler.errors import CorruptData
from profiler.window import Build
from symbolizer.elf import Elf
from symbolizer.files import FILE_GONE, VDSO, open_build
from symbolizer.names import clean_text, readable_names
from symbolizer.symtab import SymbolTable, read_symbols

U64 = npt.NDArray[np.uint64]
Key = tuple[str, ...]

OK = "ok"
NOT_COVERED = "no symbol covers the address"
NOT_EXPORTED = "stripped: no exported function covers the address"
NO_FILE = "anonymous memory (JIT code?)"

_ENTRY_BYTES = 400  # what a key, a reason and the objects around a table cost, roughly


@dataclass(frozen=True)
class Names:
    """What was found for each of some addresses: columns of equal length."""

    functions: list[str]
    system_names: list[str]
    states: list[str]
    is_final: bool = True  # False: the reason may pass, ask again later


class BuildSymbols:
    """Names for the files of all processes; forgets the tables used least recently when they exceed the budget."""

    def __init__(self, cache_bytes: int) -> None:
        self._cache_bytes = cache_bytes
        self._tables: OrderedDict[Key, SymbolTable | str] = OrderedDict()  # a text is why there is no table
        self.held_bytes = 0

    def resolve(self, build: Build, file_offsets: U64) -> Names:
        """Name the functions at the file offsets of a build; never raises over the file."""
        if not build.sources and build.path != VDSO:
            return unknown_names(len(file_offsets), _reason_without_file(build), is_final=build.path.startswith("["))
        key = build_key(build)
        known = self._tables.get(key)
        if known is not None:
            self._tables.move_to_end(key)
        if isinstance(known, str):
            return unknown_names(len(file_offsets), known)
        if known is not None and known.strings:
            return _name(known, file_offsets, None)
        return self._resolve_from_file(build, known, file_offsets)

    def _resolve_from_file(self, build: Build, table: SymbolTable | None, file_offsets: U64) -> Names:
        try:
            with open_build(build) as elf:
                if table is None:
                    table = read_symbols(elf)
                    self._keep(build_key(build), table)
                return _name(table, file_offsets, elf)
        except FileNotFoundError as error:
            return unknown_names(len(file_offsets), str(error), is_final=False)
        except (CorruptData, OSError) as error:
            reason = clean_text(str(error))
            self._keep(build_key(build), reason)
            return unknown_names(len(file_offsets), reason)

    def _keep(self, key: Key, entry: SymbolTable | str) -> None:
        self.held_bytes += _held_bytes(entry) - _held_bytes(self._tables.pop(key, None))
        self._tables[key] = entry
        while self.held_bytes > self._cache_bytes and len(self._tables) > 1:
            self.held_bytes -= _held_bytes(self._tables.popitem(last=False)[1])


def build_key(build: Build) -> Key:
    """Return what tells builds apart: the build ID, or where there is none the path and size.

    A file that was changed in place without a build ID and without changing its size is taken for the old one.
    """
    return (build.build_id,) if build.build_id else (build.path, str(build.size_bytes))


def _held_bytes(entry: SymbolTable | str | None) -> int:
    if entry is None:
        return 0
    return _ENTRY_BYTES + (entry.size_bytes if isinstance(entry, SymbolTable) else 0)


def unknown_names(count: int, state: str, is_final: bool = True) -> Names:
    """Return `count` addresses without a name, all for one reason."""
    return Names([""] * count, [""] * count, [state] * count, is_final)


def _reason_without_file(build: Build) -> str:
    if build.path in ("", "[anon]", "[heap]", "[stack]") or build.path.startswith("[anon:"):
        return NO_FILE
    return clean_text(build.reason) or (f"no symbols for {build.path}" if build.path.startswith("[") else FILE_GONE)


def _name(table: SymbolTable, file_offsets: U64, elf: Elf | None) -> Names:
    rows, inverse = np.unique(table.look_up(file_offsets), return_inverse=True)
    raws = [table.raw_name(row, elf) if row >= 0 else b"" for row in rows.tolist()]
    functions, system_names = readable_names(raws)
    not_covered = NOT_EXPORTED if table.is_exports_only else NOT_COVERED
    states = [_state(raw) if row >= 0 else not_covered for row, raw in zip(rows.tolist(), raws, strict=True)]
    order = inverse.tolist()
    return Names([functions[i] for i in order], [system_names[i] for i in order], [states[i] for i in order])


def _state(raw: bytes) -> str:
    return OK if raw else "malformed ELF file: a name lies outside its string table"
