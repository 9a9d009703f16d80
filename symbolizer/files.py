"""Opens the files that code was executed from. They belong to other people's containers, so nothing is trusted.

A source must be a regular file, which is found out before it is opened (to open a device may act on it, to open a FIFO
may block), and must carry the build ID that was seen while the process lived: sources go stale when pids come back
and files are replaced. Not guarded against: a file system that never answers.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from profiler.errors import CorruptData
from profiler.window import Build
from symbolizer.elf import Elf

VDSO = "[vdso]"
FILE_GONE = "file gone"

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_MAX_VDSO_BYTES = 1 << 20


@contextmanager
def open_build(build: Build) -> Iterator[Elf]:
    """Open the first of a build's sources that is its file.

    Raises `FileNotFoundError` with the reason when no source leads to that file (now: another one may later), and
    `CorruptData` when what was found cannot be used.
    """
    if build.path == VDSO:
        image = read_own_vdso()
        elf = Elf(lambda offset, length: image[offset : offset + length], len(image))
        if reason := _mismatch(elf, build):
            raise FileNotFoundError(reason)
        yield elf
        return
    handle, elf = _open_first(build)
    try:
        yield elf
    finally:
        os.close(handle)


def _open_first(build: Build) -> tuple[int, Elf]:
    reason = FILE_GONE
    for source in build.sources:
        try:
            handle = _open_regular(source)
        except (OSError, ValueError):  # gone, not permitted, or a NUL in its name: the next source may do
            continue
        try:
            elf = Elf(partial(_pread, handle), os.fstat(handle).st_size)
            mismatch = _mismatch(elf, build)
        except BaseException:
            os.close(handle)
            raise
        if not mismatch:
            return handle, elf
        os.close(handle)
        reason = mismatch
    raise FileNotFoundError(reason)


def _open_regular(source: str) -> int:
    place = os.open(source, os.O_PATH | os.O_CLOEXEC)  # only a reference: nothing is opened yet
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise CorruptData("not a regular file")
        return os.open(f"/proc/self/fd/{place}", _OPEN_FLAGS)
    finally:
        os.close(place)


def _pread(handle: int, offset: int, length: int) -> bytes:
    try:
        return os.pread(handle, length, offset)
    except (OSError, OverflowError) as error:
        raise CorruptData(f"file cannot be read: {error}") from error


def _mismatch(elf: Elf, build: Build) -> str:
    """Return why this is not the build's file, "" if it is as far as build IDs tell."""
    if not build.build_id and build.size_bytes not in (0, elf.size_bytes):
        return f"file replaced: it has {elf.size_bytes} bytes, what ran had {build.size_bytes}"
    found = elf.build_id()
    if not found or not build.build_id or found == build.build_id:
        return ""
    return f"file replaced: its build ID is {found[:12]}…, what ran had {build.build_id[:12]}…"


def read_own_vdso() -> bytes:
    """Return the vdso's ELF image as this process has it; the kernel gives every 64-bit process the same."""
    maps = Path("/proc/self/maps").read_text(errors="replace")
    found = re.search(r"^([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]$", maps, re.MULTILINE)
    if found is None:
        raise CorruptData("this process has no vdso to read the names from")
    start, end = (int(text, 16) for text in found.groups())
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), min(end - start, _MAX_VDSO_BYTES), start)
