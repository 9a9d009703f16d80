"""Windows to symbolised windows."""

from itertools import pairwise

import numpy as np
import pytest

from profiler.window import Build, UserEnd
from symbolizer import numbering
from symbolizer.elf import Elf
from symbolizer.files import read_own_vdso
from symbolizer.symbolised import FRAMES
from symbolizer.symbolizer import FOREIGN_FILE, RETRY_NS
from symbolizer.symtab import read_symbols

START = 0x7F0000400000
SCHEDULE = 0xFFFFFFFF81000110
SYMBOLS = [("leaf", 0x401000, 16, 2, 1), ("_ZN3app6callerEv", 0x401010, 16, 2, 1)]


@pytest.fixture
def program(tmp_path, made):
    path = tmp_path / "program"
    path.write_bytes(made.elf(SYMBOLS, build_id=b"\x11\x22"))
    return Build("1122", "/usr/bin/program", path.stat().st_size, (str(path),))


def mapped(made, build, stacks, **options):
    return made.window(stacks, [(0, 0, START, START + 0x1000, 0x1000)], [build], **options)


def frames_of(symbolised):
    """The frames of each stack, as dicts."""
    by_id = {frame["frame_id"]: frame for frame in symbolised.frames.to_pylist()}
    rows = [by_id[frame_id] for frame_id in symbolised.stack_frame_ids.tolist()]
    offsets = symbolised.stack_offsets.tolist()
    return [rows[a:b] for a, b in pairwise(offsets)]


def only_frame(symbolised):
    ((frame,),) = frames_of(symbolised)
    return frame


def test_a_stack_from_kernel_to_root(machine, made, program):
    # The caller's return address is the first byte after its last instruction: it is still the caller.
    window = mapped(made, program, [([SCHEDULE], [START + 4, START + 0x20], 0, UserEnd.TRUNCATED)])
    symbolised = machine.symbolizer().symbolise(window)
    assert symbolised.frames.schema.equals(FRAMES)
    (stack,) = frames_of(symbolised)
    assert [(f["kind"], f["module"], f["function"], f["rel_addr"], f["state"]) for f in stack] == [
        ("kernel", "kernel", "schedule", 0x110, "ok"),
        ("user", "program", "leaf", 0x1004, "ok"),
        ("user", "program", "app::caller()", 0x101F, "ok"),
        ("synthetic", "", "[truncated]", 0, "the frame limit was reached"),
    ]
    assert [f["system_name"] for f in stack] == ["schedule", "leaf", "_ZN3app6callerEv", ""]
    assert [f["build_id"] for f in stack] == ["abababab", "1122", "1122", ""]


def test_an_empty_window_gives_empty_tables(machine, made):
    symbolised = machine.symbolizer().symbolise(made.window())
    assert symbolised.frames.schema.equals(FRAMES) and symbolised.frames.num_rows == 0
    assert symbolised.stack_offsets.tolist() == [0]
    assert len(symbolised.stack_ids) == len(symbolised.stack_frame_ids) == 0


def test_ids_are_the_same_everywhere_and_for_ever(machine, made, program):
    window = mapped(made, program, [([SCHEDULE], [START + 4], 0), ([SCHEDULE], [START + 5], 0)])
    first, second = (machine.symbolizer().symbolise(window) for _ in range(2))
    assert first.stack_ids.tolist() == second.stack_ids.tolist()
    assert first.stack_frame_ids.tolist() == second.stack_frame_ids.tolist()
    assert len(set(first.stack_ids.tolist())) == 2
    # Stored data refers to these: a change of the hash breaks every store.
    frame = only_frame(machine.symbolizer().symbolise(mapped(made, program, [([], [START], 0)])))
    assert frame["frame_id"] == -3580437301953321634


def test_frames_are_distinct_and_steady_windows_do_not_open_files(machine, made, program, tmp_path):
    symbolizer = machine.symbolizer()
    window = mapped(made, program, [([], [START + 4, START + 0x20], 0), ([], [START + 4, START + 0x20], 0)])
    first = symbolizer.symbolise(window)
    (tmp_path / "program").unlink()
    again = symbolizer.symbolise(window)
    assert again.frames.equals(first.frames) and first.frames.num_rows == 2
    assert again.stack_ids.tolist() == first.stack_ids.tolist()


@pytest.mark.parametrize(
    ("content", "build_id", "state"),
    [
        (b"#!/bin/sh", "1122", "not an ELF file"),
        (None, "1122", "file gone"),
        ("elf", "3344", "file replaced: its build ID is 1122…, what ran had 3344…"),
        ("stripped", "1122", "stripped: no symbol table"),
    ],
)
def test_a_file_that_gives_no_names_gives_its_reason(machine, made, tmp_path, content, build_id, state):
    made_content = {"elf": made.elf(SYMBOLS, build_id=b"\x11\x22"), "stripped": made.elf([], build_id=b"\x11\x22")}
    if content is not None:
        (tmp_path / "file").write_bytes(made_content.get(content, content))
    build = Build(build_id, "/usr/lib/libx.so", 0, (str(tmp_path / "file"),))
    frame = only_frame(machine.symbolizer().symbolise(mapped(made, build, [([], [START + 4], 0)])))
    assert (frame["module"], frame["rel_addr"], frame["function"]) == ("libx.so", 0x1004, "")
    assert frame["state"] == state


@pytest.mark.parametrize(
    ("build", "module", "state"),
    [
        (Build("", "[anon]", reason="no file behind this memory"), "[anon]", "anonymous memory (JIT code?)"),
        (Build("", "[vsyscall]"), "[vsyscall]", "no symbols for [vsyscall]"),
        (Build("", "/gone", reason="file gone (No such file or directory)"), "gone", None),
        (Build("", "/gone/\udcff\x1b;x\n"), "\ufffd\ufffd;x\n", "file gone"),
    ],
)
def test_code_without_a_file_says_what_it_is(machine, made, build, module, state):
    frame = only_frame(machine.symbolizer().symbolise(mapped(made, build, [([], [START + 4], 0)])))
    assert (frame["module"], frame["function"], frame["state"]) == (module, "", state or build.reason)


def test_addresses_outside_mappings_keep_their_address(machine, made, program):
    window = mapped(made, program, [([], [0x1234], 0), ([], [0x1234], 1)], processes=2)
    (unmapped,), (gone,) = frames_of(machine.symbolizer().symbolise(window))
    assert (unmapped["module"], unmapped["rel_addr"], unmapped["state"]) == (
        "[unmapped]",
        0x1234,
        "outside any mapping",
    )
    assert (gone["module"], gone["rel_addr"]) == ("[process gone]", 0x1234)
    assert gone["state"] == "process gone before its mappings were read"


def test_an_uncovered_address_keeps_module_and_offset(machine, made, program):
    frame = only_frame(machine.symbolizer().symbolise(mapped(made, program, [([], [START + 0x800], 0)])))
    assert (frame["module"], frame["rel_addr"], frame["function"]) == ("program", 0x1800, "")
    assert frame["state"] == "no symbol covers the address"


def test_a_stripped_file_says_why_most_of_it_has_no_names(machine, made, tmp_path):
    (tmp_path / "lib").write_bytes(made.elf(SYMBOLS[:1], build_id=b"\1", table=11))
    build = Build("01", "/lib/libx.so", 0, (str(tmp_path / "lib"),))
    window = mapped(made, build, [([], [START + 4], 0), ([], [START + 0x80], 0)])
    (exported,), (other,) = frames_of(machine.symbolizer().symbolise(window))
    assert (exported["function"], exported["state"]) == ("leaf", "ok")
    assert (other["function"], other["state"]) == ("", "stripped: no exported function covers the address")


def test_the_vdso_has_names(machine, made):
    image = read_own_vdso()
    table = read_symbols(Elf(lambda offset, length: image[offset : offset + length], len(image)))
    address = START + int(table.starts[0])
    window = made.window([([], [address], 0)], [(0, 0, START, START + 0x10000, 0)], [Build("", "[vdso]")])
    frame = only_frame(machine.symbolizer().symbolise(window))
    assert (frame["module"], frame["function"]) == ("[vdso]", table.raw_name(0, None).decode())


def test_windows_from_elsewhere_get_no_wrong_names(machine, made, program):
    unnamed = Build("", program.path, program.size_bytes, program.sources)
    stacks = [([SCHEDULE], [START + 4], 0)]
    named, by_path = (mapped(made, build, stacks, boot_id="other-boot") for build in (program, unnamed))
    symbolizer = machine.symbolizer()
    kernel, user = frames_of(symbolizer.symbolise(named))[0]
    assert (kernel["function"], kernel["rel_addr"]) == ("", 0xFFFF81000110)
    assert kernel["state"] == "kernel of another boot: its symbols are not here"
    assert (user["function"], user["state"]) == ("leaf", "ok")  # the build ID says that it is the same file
    assert frames_of(symbolizer.symbolise(by_path))[0][1]["state"] == FOREIGN_FILE
    here = mapped(made, unnamed, stacks)
    assert [frame["function"] for frame in frames_of(symbolizer.symbolise(here))[0]] == ["schedule", "leaf"]


def test_a_missing_file_is_tried_again_later(machine, made, program, tmp_path):
    content = (tmp_path / "program").read_bytes()
    (tmp_path / "program").unlink()
    symbolizer = machine.symbolizer()
    window = mapped(made, program, [([], [START + 4], 0)])
    assert only_frame(symbolizer.symbolise(window))["state"] == "file gone"
    (tmp_path / "program").write_bytes(content)
    machine.now_ns = RETRY_NS - 1
    assert only_frame(symbolizer.symbolise(window))["state"] == "file gone"
    machine.now_ns = RETRY_NS
    assert only_frame(symbolizer.symbolise(window))["function"] == "leaf"


def test_names_follow_kernel_modules_that_come_and_go(machine, made):
    symbolizer = machine.symbolizer()
    window = made.window([([0xFFFFFFFFC0100010], [], -1)])
    first = only_frame(symbolizer.symbolise(window))
    machine.set_kallsyms(made.kallsyms.replace(b"6deef7357e7b4530_sampler", b"1111111111111111_other"))
    machine.now_ns = 60 * 10**9
    second = only_frame(symbolizer.symbolise(window))
    assert (first["module"], first["function"]) == ("[bpf]", "bpf_prog_6deef7357e7b4530_sampler")
    assert second["function"] == "bpf_prog_1111111111111111_other"
    assert first["frame_id"] != second["frame_id"]


def test_small_caches_give_the_same_answers(machine, made, program):
    roomy, tight = machine.symbolizer(), machine.symbolizer(table_cache_bytes=0, frame_cache_entries=2)
    rng = np.random.default_rng(1)
    for _ in range(5):
        places = [START + int(place) for place in rng.integers(0, 0x40, 6)]
        window = mapped(made, program, [([SCHEDULE], places, 0)])
        assert frames_of(roomy.symbolise(window)) == frames_of(tight.symbolise(window))


def test_numbers_that_run_out_start_again(machine, made, program, monkeypatch):
    symbolizer = machine.symbolizer()
    monkeypatch.setattr(numbering, "MAX_NUMBERS", 8)
    for turn in range(12):
        build = Build("", f"/absent/{turn}")
        frame = only_frame(symbolizer.symbolise(mapped(made, build, [([], [START + 4], 0)])))
        assert frame["module"] == str(turn)
