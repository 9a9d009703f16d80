"""An ELF file's function symbols as sorted columns, and the look-up from file offset to name.

Takes `.symtab`, or `.dynsym` where the file is stripped; functions (also indirect ones), and labels without a type
in executable sections, which is how some assembly is written. A symbol of size 0 reaches to the next symbol or the
end of its section. Of several symbols at one address one is kept, ranked as `perf` does: sized before unsized,
global before local before weak, fewer leading underscores first. 16 bytes a symbol, plus the names if they are small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from profiler.errors import CorruptData
from symbolizer.elf import SHF_EXECINSTR, SHT_DYNSYM, SHT_SYMTAB, Elf, Rows
from symbolizer.names import MAX_NAME_BYTES

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]

MAX_SYMBOLS = 2_000_000  # 48 MB of file, read in chunks; 32 MB kept at most
CHUNK_SYMBOLS = 1 << 16
MAX_KEPT_NAMES_BYTES = 2 << 20  # larger string tables stay in the file: names are then read one by one
MAX_NESTING = 8  # how far back to look for an outer function that covers the address

_STT_NOTYPE, _STT_FUNC, _STT_GNU_IFUNC = 0, 2, 10
_TYPE_RANK = np.full(16, 255, np.uint8)
_TYPE_RANK[[_STT_FUNC, _STT_GNU_IFUNC, _STT_NOTYPE]] = 0, 0, 64
_BIND_RANK = np.full(16, 12, np.uint8)
_BIND_RANK[[1, 10, 0, 2]] = 0, 0, 4, 8  # global, unique, local, weak
_UNSIZED_RANK = 32


@dataclass(frozen=True)
class _Functions:
    """Candidate symbols, one element each."""

    starts: U64
    ends: U64
    names: U32
    ranks: npt.NDArray[np.uint8]

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> _Functions:
        return _Functions(self.starts[rows], self.ends[rows], self.names[rows], self.ranks[rows])


@dataclass(frozen=True)
class SymbolTable:
    """Functions of one build by virtual address, and the segments that lead there from file offsets."""

    starts: U64  # sorted, distinct
    sizes: U32  # bytes; 4 GiB and more are cut
    names: U32  # offset in the string table
    strings_offset: int  # of the string table in the file
    strings_bytes: int
    strings: bytes  # the string table, or empty where it is too large to keep
    segment_offsets: U64  # sorted
    segment_ends: U64
    segment_biases: U64  # virtual address minus file offset, wrapping
    is_exports_only: bool  # from `.dynsym`: the other functions were stripped

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return self.starts.nbytes + self.sizes.nbytes + self.names.nbytes + len(self.strings)

    def virtual_addresses(self, file_offsets: U64) -> tuple[U64, npt.NDArray[np.bool_]]:
        """Return the address of each file offset and whether a code segment has it."""
        rows = np.searchsorted(self.segment_offsets, file_offsets, "right") - 1
        if not len(self.segment_offsets):
            return file_offsets, np.zeros(len(file_offsets), np.bool_)
        known = (rows >= 0) & (file_offsets < self.segment_ends[rows])
        return file_offsets + self.segment_biases[rows], known

    def look_up(self, file_offsets: U64) -> npt.NDArray[np.int64]:
        """Return the row of the innermost function that covers each file offset, -1 where none does."""
        addresses, known = self.virtual_addresses(file_offsets)
        if not len(self.starts):
            return np.full(len(addresses), -1)
        rows = np.where(known, np.searchsorted(self.starts, addresses, "right") - 1, -1)
        for _ in range(MAX_NESTING):
            is_missed = (rows >= 0) & (addresses - self.starts[rows] >= self.sizes[rows])
            if not is_missed.any():
                return rows
            rows[is_missed] -= 1
        return np.where((rows >= 0) & (addresses - self.starts[rows] < self.sizes[rows]), rows, -1)

    def raw_name(self, row: int, elf: Elf | None) -> bytes:
        """Return the bytes of a row's name; `elf` is needed where the string table is not kept."""
        offset = int(self.names[row])
        if self.strings:
            end = self.strings.find(b"\0", offset, offset + MAX_NAME_BYTES)
            return self.strings[offset : end if end >= 0 else offset + MAX_NAME_BYTES]
        if elf is None or offset >= self.strings_bytes:
            return b""
        raw = elf.read(self.strings_offset + offset, min(MAX_NAME_BYTES, self.strings_bytes - offset))
        return raw.partition(b"\0")[0]


def read_symbols(elf: Elf) -> SymbolTable:
    """Read the best symbol table of a file; raises `CorruptData` where it has none that can be read."""
    sections = elf.sections
    reason = "stripped: no symbol table"
    for kind in (SHT_SYMTAB, SHT_DYNSYM):
        for section in sections[sections["type"] == kind][:1]:
            try:
                table = _read_table(elf, section)
            except CorruptData as error:
                reason = str(error)
                continue
            if len(table.starts):
                return table
    raise CorruptData(reason)


def _read_table(elf: Elf, section: np.void) -> SymbolTable:
    strings, offset, size_bytes = _read_strings(elf, int(section["link"]))
    functions = _keep_best(_read_functions(elf, section), strings)
    code = elf.code_segments
    wide = {name: code[name].astype(np.uint64) for name in ("offset", "filesz", "vaddr")}
    return SymbolTable(
        starts=functions.starts,
        sizes=np.minimum(functions.ends - functions.starts, 0xFFFF_FFFF).astype(np.uint32),
        names=functions.names,
        strings_offset=offset,
        strings_bytes=size_bytes,
        strings=strings,
        segment_offsets=wide["offset"],
        segment_ends=wide["offset"] + wide["filesz"],
        segment_biases=wide["vaddr"] - wide["offset"],
        is_exports_only=bool(section["type"] == SHT_DYNSYM),
    )


def _read_strings(elf: Elf, link: int) -> tuple[bytes, int, int]:
    if link >= len(elf.sections):
        raise CorruptData(f"malformed ELF file: string table in section {link}, which is not there")
    offset, size_bytes = (int(elf.sections[link][name]) for name in ("offset", "size"))
    kept = elf.read(offset, size_bytes) if size_bytes <= MAX_KEPT_NAMES_BYTES else b""
    return kept, offset, size_bytes


def _read_functions(elf: Elf, section: np.void) -> _Functions:
    layout = elf.layouts["symbol"]
    offset, size_bytes = int(section["offset"]), int(section["size"])
    count = min(size_bytes, max(0, elf.size_bytes - offset)) // layout.itemsize
    if count * layout.itemsize < size_bytes - layout.itemsize:
        raise CorruptData("truncated ELF file: its symbol table lies outside")
    if count > MAX_SYMBOLS:
        raise CorruptData(f"symbol table of {count} entries, more than the {MAX_SYMBOLS} that are read")
    parts = []
    for first in range(0, count, CHUNK_SYMBOLS):
        raw = elf.read(offset + first * layout.itemsize, min(CHUNK_SYMBOLS, count - first) * layout.itemsize)
        whole = len(raw) // layout.itemsize  # the file may shrink while it is read
        parts.append(_select_functions(np.frombuffer(raw, layout, whole), elf.sections))
    if not parts:
        raise CorruptData("stripped: its symbol table is empty")
    return _Functions(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Functions.__annotations__))


def _select_functions(symbols: Rows, sections: Rows) -> _Functions:
    """Keep named symbols of code; their ends are cut at their section's, unsized ones reach to it for now."""
    type_rank = _TYPE_RANK[symbols["info"] & 15]
    # Section 0 is "undefined"; reserved numbers such as "absolute" are beyond the table.
    candidates = (type_rank != 255) & (symbols["name"] != 0) & (symbols["shndx"] > 0)
    candidates &= symbols["shndx"] < len(sections)
    symbols, type_rank = symbols[candidates], type_rank[candidates]
    own = sections[symbols["shndx"]]
    section_start = own["addr"].astype(np.uint64)
    section_end = section_start + own["size"].astype(np.uint64)
    starts, sizes = symbols["value"].astype(np.uint64), symbols["size"].astype(np.uint64)
    is_code = ((own["flags"] & SHF_EXECINSTR) != 0) & (starts >= section_start) & (starts < section_end)
    room = np.where(is_code, section_end - starts, 0)
    ranks = type_rank + _BIND_RANK[symbols["info"] >> 4] + np.where(sizes == 0, _UNSIZED_RANK, 0).astype(np.uint8)
    ends = starts + np.where(sizes == 0, room, np.minimum(sizes, room))
    return _Functions(starts, ends, symbols["name"].astype(np.uint32), ranks).take(is_code)


def _keep_best(functions: _Functions, strings: bytes) -> _Functions:
    """Sort by address, keep one symbol an address, and end unsized symbols at the next one."""
    if strings and len(functions.starts):
        functions = replace(functions, ranks=functions.ranks + _underscores(functions.names, strings))
    functions = functions.take(np.lexsort((functions.ranks, functions.starts)))
    is_first = np.ones(len(functions.starts), np.bool_)
    is_first[1:] = functions.starts[1:] != functions.starts[:-1]
    functions = functions.take(is_first)
    functions = functions.take(~_labels_within(functions))
    if not len(functions.starts):
        return functions
    next_start = np.append(functions.starts[1:], functions.ends[-1:])
    is_unsized = (functions.ranks & _UNSIZED_RANK) != 0
    ends = np.where(is_unsized, np.minimum(functions.ends, next_start), functions.ends)
    return replace(functions, ends=ends)


def _underscores(names: U32, strings: bytes) -> npt.NDArray[np.uint8]:
    """Return the number of leading underscores of each name, at most 2."""
    text = np.frombuffer(strings, np.uint8)
    first = text[np.minimum(names, len(text) - 1)] == ord("_")
    second = text[np.minimum(names.astype(np.int64) + 1, len(text) - 1)] == ord("_")
    count: npt.NDArray[np.uint8] = first.astype(np.uint8) + (first & second).astype(np.uint8)
    return count


def _labels_within(functions: _Functions) -> npt.NDArray[np.bool_]:
    """Tell which unsized symbols are labels inside a sized function: the function's name is the better one."""
    is_unsized = (functions.ranks & _UNSIZED_RANK) != 0
    reach = np.maximum.accumulate(np.where(is_unsized, 0, functions.ends)) if len(is_unsized) else functions.ends
    is_within: npt.NDArray[np.bool_] = is_unsized & (functions.starts < reach)
    return is_within
