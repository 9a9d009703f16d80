"""The parts of an ELF file that symbols need: segments, sections, notes; each read when asked for, each bounded.

Files are hostile: every read is a `pread` of a bounded range (a memory map would turn a truncated file into SIGBUS),
every count is checked against the file before anything is allocated. What cannot be read raises `CorruptData` with
the reason. Takes 32 and 64 bit, little endian. Not taken: more than 65,279 sections (extended numbering).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from profiler.errors import CorruptData

Rows = npt.NDArray[np.void]
Read = Callable[[int, int], bytes]  # (offset, length) to at most that many bytes

PT_LOAD, PT_NOTE = 1, 4
PF_X = 1
SHT_SYMTAB, SHT_DYNSYM = 2, 11
SHF_EXECINSTR = 4
NT_GNU_BUILD_ID = 3

MAX_NOTE_BYTES = 1 << 16
MAX_NOTE_SEGMENTS = 16
MAX_BUILD_ID_BYTES = 64


def _layouts(word: str) -> dict[str, np.dtype[np.void]]:
    """Return the file's structures; `word` is the type of addresses, offsets and sizes."""
    is_64 = word == "<u8"
    segment = [("offset", word), ("vaddr", word), ("paddr", word), ("filesz", word), ("memsz", word)]
    flags = [("flags", "<u4")]
    value = [("value", word), ("size", word)]
    kind = [("info", "u1"), ("other", "u1"), ("shndx", "<u2")]
    head = [("ident", "V16"), ("type", "<u2"), ("machine", "<u2"), ("version", "<u4"), ("entry", word)]
    sizes = ("ehsize", "phentsize", "phnum", "shentsize", "shnum", "shstrndx")
    middle = [("addr", word), ("offset", word), ("size", word), ("link", "<u4"), ("info", "<u4")]
    return {
        "header": np.dtype([*head, ("phoff", word), ("shoff", word), *flags, *((name, "<u2") for name in sizes)]),
        "segment": np.dtype(
            [("type", "<u4"), *(flags if is_64 else []), *segment, *([] if is_64 else flags), ("align", word)]
        ),
        "section": np.dtype(
            [("name", "<u4"), ("type", "<u4"), ("flags", word), *middle, ("addralign", word), ("entsize", word)]
        ),
        "symbol": np.dtype([("name", "<u4"), *(kind + value if is_64 else value + kind)]),
    }


_LAYOUTS = {1: _layouts("<u4"), 2: _layouts("<u8")}


class Elf:
    """An open ELF file. Segments, sections and notes are read at their first use."""

    def __init__(self, read: Read, size_bytes: int) -> None:
        self._read = read
        self.size_bytes = size_bytes
        ident = read(0, 16)
        if ident[:4] != b"\x7fELF":
            raise CorruptData("not an ELF file")
        if len(ident) < 16 or ident[4] not in _LAYOUTS or ident[5] != 1:
            raise CorruptData("not a little-endian ELF file of 32 or 64 bit")
        self.layouts = _LAYOUTS[ident[4]]
        self._header = self._rows(0, 1, "header")[0]

    def read(self, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset`, fewer where the file ends."""
        if offset >= self.size_bytes:
            return b""
        return self._read(offset, min(length, self.size_bytes - offset))

    def _rows(self, offset: int, count: int, layout: str) -> Rows:
        dtype = self.layouts[layout]
        raw = self.read(offset, count * dtype.itemsize)
        if len(raw) < count * dtype.itemsize:
            raise CorruptData(f"truncated ELF file: its {layout} table lies outside")
        return np.frombuffer(raw, dtype)

    def _table(self, offset: str, entry_size: str, count: str, layout: str) -> Rows:
        rows = int(self._header[count])
        if rows and self._header[entry_size] != self.layouts[layout].itemsize:
            raise CorruptData(f"malformed ELF file: {self._header[entry_size]} bytes for a {layout}")
        return self._rows(int(self._header[offset]), rows, layout)

    @cached_property
    def segments(self) -> Rows:
        """Program headers."""
        return self._table("phoff", "phentsize", "phnum", "segment")

    @cached_property
    def sections(self) -> Rows:
        """Section headers; none in a file that was stripped of them."""
        if not self._header["shoff"]:
            return np.empty(0, self.layouts["section"])
        return self._table("shoff", "shentsize", "shnum", "section")

    @cached_property
    def code_segments(self) -> Rows:
        """Loaded executable segments by file offset."""
        rows = self.segments
        rows = rows[(rows["type"] == PT_LOAD) & ((rows["flags"] & PF_X) != 0)]
        in_order: Rows = rows[np.argsort(rows["offset"], kind="stable")]
        return in_order

    def build_id(self) -> str:
        """Return the GNU build ID in hex, "" without one."""
        notes = self.segments[self.segments["type"] == PT_NOTE][:MAX_NOTE_SEGMENTS]
        for note in notes:
            raw = self.read(int(note["offset"]), min(int(note["filesz"]), MAX_NOTE_BYTES))
            if found := decode_build_id(raw):
                return found
        return ""


def decode_build_id(notes: bytes) -> str:
    """Return the GNU build ID of a run of ELF notes in hex, "" without one."""
    offset = 0
    while offset + 12 <= len(notes):
        name_size, body_size, kind = (int.from_bytes(notes[offset + i : offset + i + 4], "little") for i in (0, 4, 8))
        body = offset + 12 + _padded(name_size)
        if kind == NT_GNU_BUILD_ID and notes[offset + 12 : offset + 12 + name_size] == b"GNU\0":
            return notes[body : body + min(body_size, MAX_BUILD_ID_BYTES)].hex()
        offset = body + _padded(body_size)
    return ""


def _padded(size_bytes: int) -> int:
    return (size_bytes + 3) & ~3
