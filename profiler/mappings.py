"""Where the code of sampled processes lies: /proc/PID/maps to mappings of builds, read while the process lives.

A process is one incarnation: (tgid, exec id, start time). Its mappings are read at the first drain that brings a
sample of it, again when a program counter falls outside all of them (dlopen), and kept as long as it is sampled.
Files are opened at once and held open in bounded number, so that symbols can be read after the process has gone or
the file was deleted. Everything is read through /proc/PID/map_files, which reaches into containers and to deleted
files; only regular files are opened.

Limits: a process that ends before its first drain, or that cannot be read then, keeps no mappings, which is counted.
"""

from __future__ import annotations

import os
import re
import resource
import stat
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiler.build_id import read_build_id
from profiler.window import MAPPING, Build

MAX_PROCESSES = 4096
MAX_OPEN_FILES = 512  # and a quarter of what the process may open
MAX_BUILDS = 16384
MAX_ROWS = 1_000_000  # of all processes together, 32 bytes each; the process read last keeps its own
MAX_MAPS_BYTES = 64 * 1024 * 1024  # 50,000 mappings take 5 MB

_EXECUTABLE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+) *(.*)$", re.M)
_DELETED = " (deleted)"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")

# One incarnation of a process: tgid, exec id, start of the group leader in ns since boot.
ProcessKey = tuple[int, int, int]


@dataclass(frozen=True)
class _File:
    """A file as the kernel knows it; a changed file is another one."""

    device: int
    inode: int
    size_bytes: int
    changed_ns: int


class MappingTable:
    """Mappings of live and recent processes, and the builds they map, by number."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self.builds: dict[int, Build] = {}
        self._next_build = 0
        self._proc = proc
        self._processes: OrderedDict[ProcessKey, npt.NDArray[np.void]] = OrderedDict()
        self._build_numbers: dict[_File | str, int] = {}
        self._open_files: OrderedDict[int, int] = OrderedDict()  # build number -> descriptor
        self._rows = 0  # of all processes
        self._unread: set[ProcessKey] = set()

    def note(self, key: ProcessKey) -> None:
        """Read the mappings of a process that was sampled, unless they are known."""
        if key in self._processes:
            self._processes.move_to_end(key)
        elif key not in self._unread:
            self.read(key)

    def covers(self, key: ProcessKey, addresses: npt.NDArray[np.uint64]) -> bool:
        """Tell whether all addresses lie in known mappings of the process; also True when it cannot be read."""
        mappings = self._processes.get(key)
        if mappings is None:
            return True
        rows = np.searchsorted(mappings["start"], addresses, side="right") - 1
        return bool(np.all(rows >= 0) and np.all(addresses < mappings["end"][rows]))

    def read(self, key: ProcessKey) -> None:
        """Read the mappings of a process now; keeps the old ones if it has gone."""
        tgid, _, start_ns = key
        text = self._read_maps(tgid, start_ns)
        if text is None:
            if key not in self._processes:
                self._unread.add(key)
            return
        files: dict[bytes, int] = {}
        rows = [self._decode_line(tgid, match, files) for match in _EXECUTABLE.finditer(text)]
        mappings = np.array(rows, dtype=MAPPING)
        self._keep(key, mappings[np.argsort(mappings["start"])])
        if len(self.builds) > MAX_BUILDS:
            self._forget_builds()

    def of(self, key: ProcessKey) -> npt.NDArray[np.void] | None:
        """Return MAPPING rows of the process by start, None if they could not be read.

        `process` is left 0, `build` is a number in `builds`.
        """
        return self._processes.get(key)

    def forget_unread(self) -> None:
        """Forget which processes were gone before their mappings could be read; they will not come back."""
        self._unread.clear()

    def close(self) -> None:
        """Close the files held open."""
        for number in list(self._open_files):
            self._close_file(number)

    def _read_maps(self, tgid: int, start_ns: int) -> bytes | None:
        """The text of maps, if the process is still the one that was sampled and has memory: a zombie has none."""
        try:
            with open(self._proc / str(tgid) / "maps", "rb") as file:
                text = file.read(MAX_MAPS_BYTES)
            fields = (self._proc / str(tgid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:  # gone, hidden from us, or we have no descriptor left
            return None
        started_ticks = int(fields[19])  # field 22 of stat(5), "starttime"
        is_same = abs(started_ticks - start_ns * _CLOCK_TICKS // 1_000_000_000) <= 1
        return text if text and is_same else None

    def _keep(self, key: ProcessKey, mappings: npt.NDArray[np.void]) -> None:
        """Keep the mappings of a process; the processes that were not sampled for longest make room."""
        self._rows += len(mappings) - len(self._processes.pop(key, ()))
        self._processes[key] = mappings
        while len(self._processes) > 1 and (len(self._processes) > MAX_PROCESSES or self._rows > MAX_ROWS):
            self._rows -= len(self._processes.popitem(last=False)[1])

    def _decode_line(
        self, tgid: int, match: re.Match[bytes], files: dict[bytes, int]
    ) -> tuple[int, int, int, int, int]:
        """One MAPPING row. `files` has the builds of this process's files by device and inode: one is often mapped."""
        start, end, file_offset = (int(match[group], 16) for group in (1, 2, 3))
        path = os.fsdecode(match[6])
        is_file = path.startswith("/") and match[5] != b"0"
        span = f"{start:x}-{end:x}"  # map_files has no leading zeros, maps has
        if not is_file:
            return 0, self._area_build(path), start, end, file_offset
        file = b"%b %b" % (match[4], match[5])
        if file not in files:
            files[file] = self._file_build(tgid, path, span)
        return 0, files[file], start, end, file_offset

    def _area_build(self, path: str) -> int:
        """Code without a file behind it: the vdso, a JIT's memory."""
        name = path if path.startswith("[") else "[anon]"
        if name.startswith("[anon"):
            name = "[anon]"
        return self._add(name, Build(build_id="", path=name, reason="no file behind this memory"))

    def _file_build(self, tgid: int, path: str, span: str) -> int:
        shown = path.removesuffix(_DELETED)
        source = f"{self._proc}/{tgid}/map_files/{span}"
        try:
            status = Path(source).stat()
        except OSError as error:
            return self._add(shown, Build(build_id="", path=shown, reason=f"file gone ({error.strerror})"))
        key = _File(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        number = self._build_numbers.get(key)
        if number is not None:
            if number in self._open_files:
                self._open_files.move_to_end(number)
            return number
        if not stat.S_ISREG(status.st_mode):
            return self._add(key, Build(build_id="", path=shown, reason="not a regular file"))
        return self._open_build(key, shown, source, f"{self._proc}/{tgid}/root{shown}")

    def _open_build(self, key: _File, shown: str, source: str, rooted: str) -> int:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return self._add(key, Build(build_id="", path=shown, reason=f"file cannot be opened ({error.strerror})"))
        build_id, reason = read_build_id(fd)
        # By the descriptor while it is open; afterwards by name, where the build ID tells whether it is still the file.
        sources = (f"/proc/{os.getpid()}/fd/{fd}", rooted, shown)
        number = self._add(key, Build(build_id, shown, key.size_bytes, sources, reason))
        self._open_files[number] = fd
        if len(self._open_files) > min(MAX_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4):
            self._close_file(next(iter(self._open_files)))
        return number

    def _close_file(self, number: int) -> None:
        """Close a build's file, and forget the descriptor's name: it will soon be another file's."""
        os.close(self._open_files.pop(number))
        build = self.builds[number]
        self.builds[number] = replace(build, sources=build.sources[1:])

    def _forget_builds(self) -> None:
        """Forget the builds that no known process maps."""
        used = {int(number) for mappings in self._processes.values() for number in np.unique(mappings["build"])}
        for number in self._open_files.keys() - used:
            self._close_file(number)
        self.builds = {number: build for number, build in self.builds.items() if number in used}
        self._build_numbers = {key: number for key, number in self._build_numbers.items() if number in used}

    def _add(self, key: _File | str, build: Build) -> int:
        if key not in self._build_numbers:
            self._build_numbers[key] = self._next_build
            self.builds[self._next_build] = build
            self._next_build += 1
        return self._build_numbers[key]
