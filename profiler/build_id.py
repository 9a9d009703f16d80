"""GNU build ID of an ELF file, read with a handful of bounded reads: the file may be anybody's.

Looks at program headers only (a stripped section table does not matter). Source: System V gABI, "Note Section".
"""

from __future__ import annotations

import os
import struct

MAX_PROGRAM_HEADERS = 256
MAX_NOTE_BYTES = 64 * 1024
MAX_BUILD_ID_BYTES = 64
_PT_NOTE, _NT_GNU_BUILD_ID = 4, 3


def read_build_id(fd: int) -> tuple[str, str]:
    """Return (build ID in hex, "") or ("", the reason why there is none)."""
    try:
        header = os.pread(fd, 64, 0)
        if len(header) < 52 or header[:4] != b"\x7fELF":
            return "", "not an ELF file"
        order = "<" if header[5] == 1 else ">"
        is_64 = header[4] == 2
        for offset, size in _note_segments(fd, header, order, is_64):
            build_id = _find_build_id(os.pread(fd, min(size, MAX_NOTE_BYTES), offset), order)
            if build_id:
                return build_id, ""
    except (OSError, OverflowError, struct.error) as error:
        return "", f"unreadable ELF headers ({type(error).__name__})"
    return "", "no build ID note"


def _note_segments(fd: int, header: bytes, order: str, is_64: bool) -> list[tuple[int, int]]:
    """(offset, size) in the file of each PT_NOTE."""
    if is_64:
        table, entry_size, count = (
            *struct.unpack_from(order + "Q", header, 32),
            *struct.unpack_from(order + "HH", header, 54),
        )
    else:
        table, entry_size, count = (
            *struct.unpack_from(order + "I", header, 28),
            *struct.unpack_from(order + "HH", header, 42),
        )
    needed = 56 if is_64 else 32
    if entry_size < needed:
        return []
    count = min(count, MAX_PROGRAM_HEADERS)
    entries = os.pread(fd, entry_size * count, table)
    segments = []
    for start in range(0, len(entries) - needed + 1, entry_size):
        if is_64:
            kind, _, offset, _, _, size = struct.unpack_from(order + "IIQQQQ", entries, start)
        else:
            kind, offset, _, _, size = struct.unpack_from(order + "IIIII", entries, start)
        if kind == _PT_NOTE:
            segments.append((offset, size))
    return segments


def _find_build_id(notes: bytes, order: str) -> str:
    position = 0
    while position + 12 <= len(notes):
        name_size, content_size, kind = struct.unpack_from(order + "III", notes, position)
        name = position + 12
        content = name + (name_size + 3 & ~3)
        is_gnu = name_size == 4 and notes[name : name + 4] == b"GNU\0"
        is_whole = content_size <= MAX_BUILD_ID_BYTES and content + content_size <= len(notes)
        if is_gnu and kind == _NT_GNU_BUILD_ID and is_whole:
            return notes[content : content + content_size].hex()
        position = content + (content_size + 3 & ~3)
    return ""
