"""Bounded reading of ELF files, hostile ones too."""

import os
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.errors import CorruptData
from profiler.window import Build
from symbolizer.builds import BuildSymbols
from symbolizer.elf import Elf, decode_build_id
from symbolizer.files import open_build, read_own_vdso
from symbolizer.symtab import read_symbols

REAL = Path(sys.executable).resolve().read_bytes()


def elf_of(raw):
    return Elf(lambda offset, length: raw[offset : offset + length], len(raw))


def test_build_id_is_read_from_notes(made):
    assert elf_of(made.elf([], build_id=b"\x01\x02\xff")).build_id() == "0102ff"
    assert elf_of(made.elf([])).build_id() == ""


def test_build_id_behind_other_notes():
    other = struct.pack("<III", 5, 3, 1) + b"Other\0\0\0" + b"abc\0"
    assert decode_build_id(other + struct.pack("<III", 4, 2, 3) + b"GNU\0" + b"\xbe\xef") == "beef"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not an ELF file"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (b"\x7fELF", "not a little-endian ELF file"),
        (b"\x7fELF\2\2" + bytes(58), "not a little-endian ELF file"),
        (b"\x7fELF\2\1" + bytes(20), "truncated ELF file"),
        (b"\x7fELF\2\1" + bytes(58), "stripped: no symbol table"),
    ],
)
def test_refusals_say_why(raw, reason):
    with pytest.raises(CorruptData, match=reason):
        read_symbols(elf_of(raw))


def test_table_beyond_the_end_is_truncated(made):
    raw = made.elf([("f", 0x401000, 16, 2, 1)])
    with pytest.raises(CorruptData, match="its section table lies outside"):
        read_symbols(elf_of(raw[:-1]))


def test_32_bit_files_are_read():
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 3, 3, 1, 0, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0x1000, 0x8000, 0, 0x200, 0x200, 5, 4096)
    elf = elf_of(head + segment)
    assert elf.code_segments["vaddr"].tolist() == [0x8000]


def test_own_vdso_has_its_functions():
    table = read_symbols(elf_of(read_own_vdso()))
    names = {table.raw_name(row, None) for row in range(len(table.starts))}
    assert b"__vdso_clock_gettime" in names


def build_for(*sources, build_id="", path="/bin/x"):
    return Build(build_id, path, 0, tuple(map(str, sources)))


def test_first_source_that_is_the_file_wins(tmp_path, made):
    (tmp_path / "stale").write_bytes(made.elf([], build_id=b"\1"))
    (tmp_path / "right").write_bytes(made.elf([], build_id=b"\2"))
    sources = (tmp_path / "absent", tmp_path / "stale", tmp_path / "right")
    with open_build(build_for(*sources, build_id="02")) as elf:
        assert elf.build_id() == "02"
    with pytest.raises(FileNotFoundError, match=r"file replaced: its build ID is 02…, what ran had 03…"):
        open_build(build_for(*sources, build_id="03")).__enter__()


def test_a_fifo_does_not_block_and_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CorruptData, match="not a regular file"):
        open_build(build_for(tmp_path / "fifo")).__enter__()


def test_no_descriptor_is_left_open(tmp_path, made):
    (tmp_path / "file").write_bytes(made.elf([], build_id=b"\1"))
    (tmp_path / "text").write_bytes(b"text")
    before = open_descriptors()
    for build in (build_for(tmp_path / "file"), build_for(tmp_path / "file", build_id="02"), build_for("a\0b")):
        BuildSymbols(1 << 20).resolve(build, read_offsets())
    BuildSymbols(1 << 20).resolve(build_for(tmp_path / "text"), read_offsets())
    assert open_descriptors() == before


def open_descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def read_offsets():
    return np.array([0, 0x1000, 0x1001, 1 << 40, (1 << 48) - 1], np.uint64)


# Where a change does most harm: the headers, and the section table at the end.
positions = st.one_of(st.integers(0, 1024), st.integers(0, 4096).map(lambda back: len(REAL) - 1 - back))
mutations = st.lists(st.tuples(positions, st.binary(min_size=1, max_size=8)), max_size=12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations, st.one_of(st.just(len(REAL)), st.integers(0, len(REAL))))
def test_a_damaged_file_costs_its_own_symbols_only(tmp_path, changes, length):
    raw = bytearray(REAL)
    for at, data in changes:
        raw[at : at + len(data)] = data
    (tmp_path / "damaged").write_bytes(raw[:length])
    builds = BuildSymbols(1 << 20)
    tracemalloc.start()
    started = time.process_time()
    try:
        names = builds.resolve(build_for(tmp_path / "damaged"), read_offsets())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(names.states) == len(names.functions) == len(read_offsets())
    assert all(
        state and (function or state != "ok") for function, state in zip(names.functions, names.states, strict=True)
    )
    assert peak_bytes < 64 << 20
    assert time.process_time() - started < 5
