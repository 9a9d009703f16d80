"""The text of kallsyms to sorted columns and look-ups: the kernel proper, its modules, and BPF programs.

A line is `address type name`, with a tab and the module in brackets where it is not the kernel proper; "[bpf]" and
"[__builtin…]" are not modules but code that the kernel made. Only text symbols are kept. kallsyms has no sizes: a
symbol reaches to the next one, outside the kernel proper at most 64 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from profiler.errors import CorruptData

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

MAX_OUTSIDE_BYTES = 1 << 16  # reach of a symbol outside the kernel proper; the largest BPF program is of this order

_DIGITS = 16  # of an address; then a space, the type, a space, the name
_NAME_AT = _DIGITS + 3
_TEXT_TYPES = np.frombuffer(b"tTwW", np.uint8)
_MARKERS = (b"_text", b"_stext", b"_etext", b"_sinittext", b"_einittext")


@dataclass(frozen=True)
class Kallsyms:
    """Text symbols sorted by address; names stay in `text` until they are asked for."""

    text: bytes = b""
    starts: U64 = field(default_factory=lambda: np.empty(0, np.uint64))  # distinct
    ends: U64 = field(default_factory=lambda: np.empty(0, np.uint64))
    lines: I64 = field(default_factory=lambda: np.empty(0, np.int64))  # offset of the symbol's line in `text`
    stext: int = 0  # the kernel proper is [stext, etext)
    etext: int = 0
    module_bases: dict[bytes, int] = field(default_factory=dict)  # "[name]" to its lowest symbol
    is_hidden: bool = False  # every address is 0

    def rows(self, addresses: U64) -> I64:
        """Return the row of the symbol that covers each address, -1 where none does."""
        if not len(self.starts):
            return np.full(len(addresses), -1)
        rows = np.searchsorted(self.starts, addresses, "right") - 1
        return np.where((rows >= 0) & (addresses < self.ends[rows]), rows, -1)

    def name_and_module(self, row: int) -> tuple[bytes, bytes]:
        """Return the name, and the module in brackets or b"" for the kernel proper."""
        begin = int(self.lines[row]) + _NAME_AT
        name, _, module = self.text[begin : self.text.index(b"\n", begin)].partition(b"\t")
        return name, module.strip()


def decode_kallsyms(text: bytes) -> Kallsyms:
    """Decode the whole text; raises `CorruptData` where a line is not of the form above."""
    data = np.frombuffer(text, np.uint8)
    line_ends = np.flatnonzero(data == ord("\n"))
    lines = np.append(0, line_ends[:-1] + 1)
    if not len(line_ends) or (line_ends - lines).min() <= _NAME_AT or (data[lines + _DIGITS] != ord(" ")).any():
        raise CorruptData("kallsyms has a line without an address of 16 digits")
    is_text = np.isin(data[lines + _DIGITS + 1], _TEXT_TYPES)
    lines, line_ends = lines[is_text], line_ends[is_text]
    addresses = _parse_hex(data, lines)
    if not addresses.any():
        return Kallsyms(text, is_hidden=True)
    bases = _module_bases(text, lines, line_ends, addresses)
    return _sorted(text, data, lines, addresses, bases)


def _parse_hex(data: Bytes, lines: I64) -> U64:
    addresses = np.zeros(len(lines), np.uint64)
    for digit in range(_DIGITS):
        char = data[lines + digit]
        addresses <<= np.uint64(4)
        addresses |= np.where(char >= ord("a"), char - (ord("a") - 10), char - ord("0")) & 15
    return addresses


def _module_bases(text: bytes, lines: I64, line_ends: I64, addresses: U64) -> dict[bytes, int]:
    tabs = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\t"))
    owners = np.searchsorted(lines, tabs, "right") - 1
    is_own = (owners >= 0) & (tabs < line_ends[owners])  # other tabs stand in lines of data symbols
    owners, tabs = owners[is_own], tabs[is_own]
    bases: dict[bytes, int] = {}
    for tab, end, address in zip(tabs.tolist(), line_ends[owners].tolist(), addresses[owners].tolist(), strict=True):
        module = text[tab + 1 : end].strip()
        bases[module] = min(address, bases.get(module, address))
    return bases


def _sorted(text: bytes, data: Bytes, lines: I64, addresses: U64, bases: dict[bytes, int]) -> Kallsyms:
    marks = {name: text.find(b" %s\n" % name) - _DIGITS - 2 for name in _MARKERS}
    is_marker = np.isin(lines, list(marks.values()))
    kinds = data[lines + _DIGITS + 1]
    # Global before local before weak; a section marker is nobody's function and comes last.
    rank = np.where(kinds == ord("T"), 0, np.where(kinds == ord("t"), 1, 2)) + 4 * is_marker
    order = np.lexsort((rank, addresses))
    order = order[np.append(True, np.diff(addresses[order]) != 0)]
    starts, lines = addresses[order], lines[order]
    stext = _address(text, marks[b"_stext"]) or int(starts[0])
    etext = _address(text, marks[b"_etext"]) or int(starts[-1]) + 1
    ends = np.append(starts[1:], np.uint64(0xFFFF_FFFF_FFFF_FFFF))
    is_proper = (starts >= stext) & (starts < etext)
    reach = np.where(is_proper, np.uint64(etext) - starts, np.uint64(MAX_OUTSIDE_BYTES))
    reach = np.where(is_marker[order], 0, reach).astype(np.uint64)
    return Kallsyms(text, starts, starts + np.minimum(ends - starts, reach), lines, stext, etext, bases)


def _address(text: bytes, line: int) -> int:
    return int(text[line : line + _DIGITS], 16) if line >= 0 else 0
