"""Kernel addresses to named places, with the running kernel's symbols kept fresh.

A place is a distance from `_stext`, or from the module's lowest symbol, so that it survives address randomisation; a
BPF program is its own origin, since its place in memory means nothing. Where the kernel hides its addresses
(`kptr_restrict`) or kallsyms cannot be read, that is the state of every kernel frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiler.errors import CorruptData
from symbolizer.elf import MAX_NOTE_BYTES, decode_build_id
from symbolizer.kallsyms import Kallsyms, decode_kallsyms
from symbolizer.names import clean_text, decode_name

U64 = npt.NDArray[np.uint64]

OK = "ok"
HIDDEN = "kernel addresses hidden (kptr_restrict)"
NOT_COVERED = "no kernel symbol covers the address"

MAX_KALLSYMS_BYTES = 64 << 20  # a distribution's kernel with its modules has 10 to 15 MB
LOW_48_BITS = (1 << 48) - 1

# Modules and BPF programs come and go. Reading kallsyms takes 0.1 s, so it is read again after a minute at the
# earliest, and each time that nothing had changed the wait doubles.
FIRST_REREAD_NS = 60 * 10**9
LAST_REREAD_NS = 16 * FIRST_REREAD_NS


@dataclass(frozen=True)
class KernelPlace:
    """What is known of one kernel address."""

    module: str  # "kernel", or "[name]"
    build_id: str
    origin: str  # what `position` is the distance from; a part of the frame's identity
    position: int  # bytes; the low 48 bits of the address where there is no origin to measure from
    function: str
    state: str


class KernelSymbols:
    """The running kernel's symbols, read at the first use and again when they may have changed."""

    def __init__(
        self,
        kallsyms: Path = Path("/proc/kallsyms"),
        sys: Path = Path("/sys"),
        boot_id: Path = Path("/proc/sys/kernel/random/boot_id"),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._path = kallsyms
        self._sys = sys
        self._boot_id = boot_id
        self._clock_ns = clock_ns
        self._symbols = Kallsyms()
        self._state = ""  # "" before the first reading, then "ok" or why there are no symbols
        self._read_ns = 0
        self._reread_ns = FIRST_REREAD_NS
        self._module_build_ids: dict[str, str] = {}
        self.generation = 0  # grows when the symbols changed: places found before may be wrong

    @cached_property
    def boot_id(self) -> str:
        """This machine's boot; "" where it cannot be told."""
        try:
            return self._boot_id.read_text().strip()
        except OSError:
            return ""

    @cached_property
    def build_id(self) -> str:
        """The kernel's GNU build ID in hex; "" where it has none."""
        return _read_build_id(self._sys / "kernel/notes")

    def refresh(self, addresses: U64) -> None:
        """Read kallsyms if it was not yet, or if the last reading is old and these addresses may need a newer one."""
        now_ns = self._clock_ns()
        if self._state:
            is_outside = (addresses < self._symbols.stext) | (addresses >= self._symbols.etext)
            if now_ns - self._read_ns < self._reread_ns or not is_outside.any():
                return
        symbols, state = self._read()
        is_changed = state != self._state or symbols.text != self._symbols.text
        self._read_ns = now_ns
        self._reread_ns = FIRST_REREAD_NS if is_changed else min(2 * self._reread_ns, LAST_REREAD_NS)
        if is_changed:
            self._symbols, self._state = symbols, state
            self._module_build_ids = {}
            self.generation += 1

    def resolve(self, addresses: U64) -> list[KernelPlace]:
        """Name the functions at kernel addresses."""
        rows = self._symbols.rows(addresses)
        return [self._place(address, row) for address, row in zip(addresses.tolist(), rows.tolist(), strict=True)]

    def _place(self, address: int, row: int) -> KernelPlace:
        symbols = self._symbols
        if row < 0:
            is_proper = symbols.stext <= address < symbols.etext
            position = address - symbols.stext if is_proper else address & LOW_48_BITS
            state = self._state if self._state != OK else NOT_COVERED
            return KernelPlace("kernel", self.build_id, "kernel", position, "", state)
        name, module = symbols.name_and_module(row)
        function = decode_name(name)
        if not module:
            return KernelPlace("kernel", self.build_id, "kernel", address - symbols.stext, function, OK)
        label = clean_text(module.decode("utf-8", "replace"))
        if module == b"[bpf]" or module.startswith(b"[__builtin"):
            return KernelPlace(label, "", f"{label} {function}", address - int(symbols.starts[row]), function, OK)
        build_id = self._module_build_id(label)
        return KernelPlace(label, build_id, label, address - symbols.module_bases[module], function, OK)

    def _module_build_id(self, label: str) -> str:
        if label not in self._module_build_ids:
            notes = self._sys / "module" / label.strip("[]") / "notes/.note.gnu.build-id"
            self._module_build_ids[label] = _read_build_id(notes)
        return self._module_build_ids[label]

    def _read(self) -> tuple[Kallsyms, str]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_KALLSYMS_BYTES)
            symbols = decode_kallsyms(text)
        except OSError as error:
            return Kallsyms(), f"kernel symbols cannot be read: {error.strerror}"
        except CorruptData as error:
            return Kallsyms(), str(error)
        return symbols, HIDDEN if symbols.is_hidden else OK


def _read_build_id(notes: Path) -> str:
    try:
        with notes.open("rb") as file:
            return decode_build_id(file.read(MAX_NOTE_BYTES))
    except OSError:  # this kernel or module has no notes: the frame says so by an empty build ID
        return ""
