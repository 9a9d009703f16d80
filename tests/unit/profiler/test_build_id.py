"""Build IDs of ELF files made by hand, of a real one, and of bytes that only look like one."""

import os
import shutil
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import build_id as module
from profiler.build_id import MAX_NOTE_BYTES, MAX_PROGRAM_HEADERS, read_build_id

PT_LOAD, PT_NOTE = 1, 4
NT_GNU_BUILD_ID, NT_GNU_PROPERTY = 3, 5
ID = bytes(range(20))
FORMATS = [(bits, order) for bits in (32, 64) for order in "<>"]


def pad(content):
    return content + bytes(-len(content) % 4)


def make_note(content=ID, name=b"GNU\0", kind=NT_GNU_BUILD_ID, order="<"):
    return struct.pack(order + "III", len(name), len(content), kind) + pad(name) + pad(content)


def make_elf(*segments, bits=64, order="<"):
    """An ELF file of program headers and the segments' contents: (type, bytes) each."""
    header_size, entry_size = (64, 56) if bits == 64 else (52, 32)
    position = header_size + entry_size * len(segments)
    table = contents = b""
    for kind, content in segments:
        at, size = position + len(contents), len(content)
        if bits == 64:
            table += struct.pack(order + "IIQQQQQQ", kind, 4, at, at, at, size, size, 4)
        else:
            table += struct.pack(order + "8I", kind, at, at, at, size, size, 4, 4)
        contents += content
    start = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1, *[0] * 9])
    sizes = (header_size, entry_size, len(segments), 0, 0, 0)
    addresses = "QQQ" if bits == 64 else "III"
    start += struct.pack(f"{order}HHI{addresses}I6H", 3, 62, 1, 0, header_size, 0, 0, *sizes)
    assert len(start) == header_size
    return start + table + contents


def read(content):
    fd = os.memfd_create("elf")
    try:
        os.write(fd, content)
        return read_build_id(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(("bits", "order"), FORMATS)
def test_the_note_is_found_in_every_format(bits, order):
    elf = make_elf((PT_LOAD, b"code"), (PT_NOTE, make_note(order=order)), bits=bits, order=order)
    assert read(elf) == (ID.hex(), "")


@pytest.mark.parametrize(("bits", "order"), FORMATS)
def test_other_notes_are_passed_over(bits, order):
    others = [
        make_note(b"\0" * 16, kind=NT_GNU_PROPERTY, order=order),
        make_note(b"stapsdt", name=b"stapsdt\0", order=order),
        make_note(b"odd", name=b"Go\0\0", kind=4, order=order),
        make_note(b"", name=b"", order=order),
    ]
    notes = b"".join([*others, make_note(order=order), *others])
    elf = make_elf((PT_NOTE, others[0]), (PT_NOTE, notes), bits=bits, order=order)
    assert read(elf) == (ID.hex(), "")


@pytest.mark.parametrize("length", [1, 8, 16, 20, 32, 64])
def test_ids_of_all_usual_lengths(length):
    assert read(make_elf((PT_NOTE, make_note(ID[:1] * length)))) == (ID[:1].hex() * length, "")


@pytest.mark.parametrize(
    "elf",
    [
        make_elf(),
        make_elf((PT_LOAD, make_note())),
        make_elf((PT_NOTE, b"")),
        make_elf((PT_NOTE, make_note(name=b"GNU"))),  # three letters, filled up to four
        make_elf((PT_NOTE, make_note(name=b"GNUx"))),
        make_elf((PT_NOTE, make_note(b"x" * 65))),
        make_elf((PT_NOTE, make_note(b""))),
        make_elf((PT_NOTE, make_note()))[:-1],  # half an ID is none
    ],
    ids=["nothing", "no note", "empty note", "short name", "other name", "long", "empty", "cut"],
)
def test_without_a_whole_note_there_is_no_build_id(elf):
    assert read(elf) == ("", "no build ID note")


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"MZ" + bytes(100)])
def test_other_files_are_no_elf_files(content):
    assert read(content) == ("", "not an ELF file")


def test_what_cannot_be_read_has_a_reason(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert read_build_id(fd) == ("", "unreadable ELF headers (IsADirectoryError)")
    finally:
        os.close(fd)


def test_offsets_beyond_any_file_have_a_reason():
    elf = bytearray(make_elf((PT_NOTE, make_note())))
    struct.pack_into("<Q", elf, 32, 2**64 - 1)
    found, reason = read(bytes(elf))
    assert not found and "unreadable ELF headers" in reason


def test_the_file_position_is_left_alone():
    fd = os.memfd_create("elf")
    os.write(fd, make_elf((PT_NOTE, make_note())))
    os.lseek(fd, 7, os.SEEK_SET)
    assert read_build_id(fd) == (ID.hex(), "")
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    os.close(fd)


def test_a_real_program_has_the_build_id_that_readelf_prints():
    assert shutil.which("readelf"), "readelf is missing; install binutils"
    printed = subprocess.run(["readelf", "-n", sys.executable], check=True, capture_output=True, text=True).stdout
    with open(sys.executable, "rb") as file:
        found, reason = read_build_id(file.fileno())
    assert not reason and f"Build ID: {found}\n" in printed


@st.composite
def damaged_files(draw):
    bits, order = draw(st.sampled_from(FORMATS))
    notes = draw(
        st.lists(st.sampled_from([make_note(order=order), make_note(b"x", kind=1, order=order), b"\xff" * 16]))
    )
    segments = [(draw(st.sampled_from([PT_LOAD, PT_NOTE])), note) for note in notes]
    content = bytearray(make_elf(*segments, bits=bits, order=order))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)):
        content[at] = byte
    return bytes(content[: draw(st.integers(0, len(content)))])


class MeteredReads:
    """Replaces os.pread in the module: what it was asked for."""

    def __init__(self):
        self.lengths = []

    def __call__(self, fd, length, offset):
        self.lengths.append(length)
        return os.pread(fd, length, offset)


@settings(max_examples=400, deadline=None)
@given(st.one_of(damaged_files(), st.binary(max_size=300).map(lambda rest: b"\x7fELF" + rest)))
def test_no_file_makes_it_raise_or_read_without_bound(content):
    reads = MeteredReads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "os", type("os", (), {"pread": reads}))
        found, reason = read(content)
    assert bool(found) != bool(reason)
    assert len(found) <= 128 and len(reason) < 80
    assert len(reads.lengths) <= 2 + MAX_PROGRAM_HEADERS
    assert max(reads.lengths) <= max(MAX_NOTE_BYTES, MAX_PROGRAM_HEADERS * 0xFFFF)


@pytest.mark.parametrize("claimed", [0xFFFF, MAX_PROGRAM_HEADERS + 1])
def test_headers_beyond_the_limit_are_not_looked_at(claimed):
    segments = [(PT_LOAD, b"")] * MAX_PROGRAM_HEADERS + [(PT_NOTE, make_note())]
    elf = bytearray(make_elf(*segments))
    struct.pack_into("<H", elf, 56, claimed)
    assert read(bytes(elf)) == ("", "no build ID note")


def test_notes_beyond_the_limit_are_not_looked_at():
    filler = make_note(bytes(MAX_NOTE_BYTES), kind=1)
    assert read(make_elf((PT_NOTE, filler + make_note()))) == ("", "no build ID note")
