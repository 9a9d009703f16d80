"""Names of real programs, libraries and the kernel beside those of binutils and kallsyms."""

import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from profiler.window import MAPPING, PROCESS, SAMPLE, Build, Node, Stacks, UserEnd, Window
from symbolizer.builds import BuildSymbols
from symbolizer.files import open_build
from symbolizer.kernel import KernelSymbols
from symbolizer.symbolizer import Symbolizer
from symbolizer.symtab import read_symbols

PROGRAMS = Path(__file__).parents[1] / "programs/symbols"
BASE = 0x7F0000000000


def run(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


def compile_to(path, *command):
    run(*command, "-o", path)
    return path


def rustc():
    return shutil.which("rustc") or str(Path("~/.cargo/bin/rustc").expanduser())


def compile_rust(path, source, mangling):
    # Which of the two manglings is the default, and which is called unstable, depends on the compiler's version.
    options = ("-O", "-Zunstable-options", "-C", f"symbol-mangling-version={mangling}", "-o", path)
    command = [rustc(), source, *options]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RUSTC_BOOTSTRAP": "1"})
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    shapes, shop, counter = (PROGRAMS / name for name in ("shapes.c", "shop.cc", "counter.rs"))
    programs = {
        "c": compile_to(root / "c", "gcc", "-O2", "-g", shapes),
        "c-static": compile_to(root / "c-static", "gcc", "-O2", "-static", shapes),
        "c-no-pie": compile_to(root / "c-no-pie", "gcc", "-O1", "-no-pie", "-Wl,--build-id=none", shapes),
        "cc": compile_to(root / "cc", "g++", "-O1", "-g", "-static-libstdc++", shop),
        "rust": compile_rust(root / "rust", counter, "legacy"),
        "rust-v0": compile_rust(root / "rust-v0", counter, "v0"),
    }
    programs["c-stripped"] = compile_to(root / "c-stripped", "strip", programs["c"])
    return programs


def build_of(path):
    notes = run("readelf", "-n", path)
    found = re.search(r"Build ID: ([0-9a-f]+)", notes)
    return Build(found[1] if found else "", str(path), path.stat().st_size, (str(path),))


def nm_functions(path, *options):
    """(address, mangled name) of the sized functions that nm prints."""
    lines = (line.split(maxsplit=3) for line in run("nm", "-S", *options, path).splitlines())
    rows = [(int(f[0], 16), f[3].partition("@")[0]) for f in lines if len(f) == 4 and f[2] in "tTwWi"]
    return [row for row in rows if row[1] != "_.stapsdt.base"]  # a mark for probes in read-only data


def names_at(path, addresses):
    """System names that we find at virtual addresses."""
    build = build_of(path)
    with open_build(build) as elf:
        segment = next(row for row in elf.code_segments)
    offsets = np.array(addresses, np.uint64) - segment["vaddr"] + segment["offset"]
    return BuildSymbols(1 << 25).resolve(build, offsets)


@pytest.mark.parametrize("program", ["c", "c-static", "c-no-pie", "cc", "rust", "rust-v0"])
def test_every_function_that_nm_knows_is_found(built, program):
    functions = nm_functions(built[program])
    at = defaultdict(set)
    for address, name in functions:
        at[address].add(name)
    found = names_at(built[program], list(at))
    wrong = [(hex(a), at[a], n) for a, n in zip(at, found.system_names, strict=True) if n not in at[a]]
    assert len(at) > 5 and not wrong
    assert set(found.states) == {"ok"}


@pytest.mark.parametrize("program", ["c", "cc", "rust"])
def test_inside_functions_addr2line_agrees(built, program):
    """Addresses spread over all of .text; where addr2line knows more than one name for the place, any will do."""
    path = built[program]
    text = re.search(r"\.text\s+PROGBITS\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", run("readelf", "-SW", path))
    start, size = int(text[1], 16), int(text[2], 16)
    addresses = sorted(set(np.linspace(start, start + size - 1, 400).astype(int).tolist()))
    (stripped_of_lines := path.with_name(path.name + "-nolines")).write_bytes(path.read_bytes())
    run("strip", "-g", stripped_of_lines)  # with debug information addr2line names inlined functions instead
    theirs = run("addr2line", "-f", "-e", stripped_of_lines, *map(hex, addresses)).splitlines()[::2]
    ours = names_at(path, addresses)
    aliases, by_address = defaultdict(set), defaultdict(set)
    for address, name in nm_functions(path):
        aliases[name].add(address)
        by_address[address].add(name)
    for their, our, state in zip(theirs, ours.system_names, ours.states, strict=True):
        same_place = {name for address in aliases[their] for name in by_address[address]}
        # Between functions there is padding, which addr2line gives to the function before and we to nobody.
        assert our == their or our in same_place or state == "no symbol covers the address"
    assert ours.states.count("ok") > 0.8 * len(addresses)


@pytest.mark.parametrize(("program", "expected"), [("cc", 600), ("rust", 200), ("rust-v0", 200)])
def test_demangled_names_agree_with_nm(built, program, expected):
    mangled = [name for _, name in nm_functions(built[program]) if name.startswith(("_Z", "_R"))]
    theirs = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True).stdout.splitlines()
    found = names_at(built[program], [address for address, n in nm_functions(built[program]) if n in set(mangled)])
    ours = dict(zip(found.system_names, found.functions, strict=True))
    pairs = [(ours[m], _plain(t)) for m, t in zip(mangled, theirs, strict=True) if m in ours]
    differing = [(our, their) for our, their in pairs if _plain(our) != their]
    print(f"{program}: {len(pairs)} demangled names, {len(differing)} spelt otherwise than by c++filt")
    assert len(pairs) >= expected
    assert len(differing) <= len(pairs) // 50, differing[:5]


def _plain(name):
    """Without what spellings differ in: blanks, and the hashes that c++filt leaves in Rust names."""
    return re.sub(r"\[[0-9a-f]{8,16}\]|::h[0-9a-f]{16}(?=$|\.)|\s", "", name)


def test_unsized_assembly_and_indirect_functions_have_names(built):
    lines = [line.split() for line in run("nm", built["c"]).splitlines()]
    at = {name: int(address, 16) for address, *_, name in (line for line in lines if len(line) == 3)}
    found = names_at(built["c"], [at["unsized_asm"] + 2, at["indirect"]])
    assert found.functions[0] == "unsized_asm"
    assert found.functions[1] in ("indirect", "resolve_chosen")


def test_a_stripped_program_keeps_offsets_and_says_so(built):
    found = names_at(built["c-stripped"], [addr for addr, name in nm_functions(built["c"]) if name == "area_global"])
    assert found.functions == [""]
    assert found.states[0].startswith("stripped: ")


def mapped_file(name):
    pattern = re.compile(rf"^([0-9a-f]+)-([0-9a-f]+) r-xp ([0-9a-f]+) \S+ \d+ +(\S*{name}\S*)$", re.MULTILINE)
    found = pattern.search(Path("/proc/self/maps").read_text())
    start, end, offset = (int(text, 16) for text in found.groups()[:3])
    return start, end, offset, Path(found[4])


def window_of(stacks, mappings, builds):
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Window(
        start_ns=0,
        end_ns=1,
        node=Node("here", boot_id, 1, "", "", "", 49, "cpu-clock", "v2"),
        samples=np.zeros(0, SAMPLE),
        stacks=stacks,
        processes=np.zeros(int(stacks.process.max(initial=0)) + 1, PROCESS),
        mappings=np.array(mappings, MAPPING),
        builds=tuple(builds),
        cgroups=(),
    )


def test_libc_functions_of_this_process():
    import ctypes

    libc = ctypes.CDLL(None)
    start, end, offset, path = mapped_file("libc.so")
    names = ["strtol", "qsort", "printf", "getaddrinfo"]
    addresses = [ctypes.cast(getattr(libc, name), ctypes.c_void_p).value for name in names]
    stacks = Stacks(
        offsets=np.arange(len(names) + 1),
        addresses=np.array(addresses, np.uint64),
        kernel_depth=np.zeros(len(names), np.int32),
        process=np.zeros(len(names), np.int32),
        user_end=np.full(len(names), UserEnd.FRAME_POINTER, np.uint8),
    )
    found = Symbolizer().symbolise(window_of(stacks, [(0, 0, start, end, offset)], [build_of(path)]))
    by_id = {frame["frame_id"]: frame for frame in found.frames.to_pylist()}
    frames = [by_id[frame_id] for frame_id in found.stack_frame_ids.tolist()]
    assert [frame["function"] for frame in frames] == names
    assert {frame["module"] for frame in frames} == {path.name}


def test_kernel_names_are_those_of_kallsyms():
    lines = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()]
    at = defaultdict(set)
    for address, kind, name, *_ in lines:
        if kind in "tTwW":
            at[int(address, 16)].add(name)
    starts = sorted(at)
    # The last symbols have no end in kallsyms, and the section marks are no functions.
    chosen = [(a, b) for a, b in pairwise(starts) if not at[a] & {"_etext", "_sinittext", "_einittext"}][:-100:50]
    kernel = KernelSymbols()
    addresses = np.array([address for a, b in chosen for address in (a, b - 1)], np.uint64)
    kernel.refresh(addresses)
    places = kernel.resolve(addresses)
    wrong = [
        (hex(start), place)
        for (start, _), *pair in zip(chosen, places[::2], places[1::2], strict=True)
        for place in pair
        if place.function not in at[start]
    ]
    assert len(places) > 1000 and not wrong
    stext = min(address for address, names in at.items() if "_stext" in names)
    assert places[0].position == chosen[0][0] - stext
    assert re.fullmatch(r"[0-9a-f]{40}", kernel.build_id)


def large_files():
    """The test's own interpreter and libraries, and whatever large program the machine has."""
    candidates = [
        Path(name) for name in ("/usr/bin/node", "/usr/lib/chromium/chromium", rustc()) if Path(name).exists()
    ]
    pythons = Path("~/.pyenv/versions").expanduser().glob("*/lib/libpython3.*.so.1.0")
    return [mapped_file("libc.so")[3], *sorted(pythons)[-1:], *(p.resolve() for p in candidates)]


def test_cost_of_reading_and_looking_up():
    """Print the figures; the bounds are an order of magnitude above them."""
    for path in large_files():
        build = build_of(path)
        started = time.process_time()
        with open_build(build) as elf:
            table = read_symbols(elf)
        read_ms = (time.process_time() - started) * 1e3
        offsets = np.random.default_rng(1).integers(0, build.size_bytes, 200_000).astype(np.uint64)
        started = time.process_time()
        table.look_up(offsets)
        per_second = len(offsets) / (time.process_time() - started)
        text = f"{len(table.starts)} symbols, {table.size_bytes / 1e6:.2f} MB kept, {read_ms:.1f} ms to read"
        print(f"{path.name} ({build.size_bytes / 1e6:.0f} MB): {text}, {per_second / 1e6:.1f} M look-ups/s")
        assert read_ms < 1000 and per_second > 300_000


def steady_window(stacks=300, depth=30, processes=40):
    """Stacks over libc and the interpreter's library, with a few kernel frames on top of each."""
    rng = np.random.default_rng(7)
    builds = [build_of(path) for path in large_files()[:2]]
    text = [line.split() for line in Path("/proc/kallsyms").read_text().splitlines()[:5000]]
    kernel = np.array([int(address, 16) for address, kind, *_ in text if kind in "tT"], np.uint64)
    pools, mappings = [], []
    for row, build in enumerate(builds):
        with open_build(build) as elf:
            table, segment = read_symbols(elf), elf.code_segments[0]
        size = (build.size_bytes + 0xFFFF) & ~0xFFFF
        base = BASE + row * (1 << 32)
        mappings += [(process, row, base, base + size, 0) for process in range(processes)]
        pools.append(table.starts[:1000] - segment["vaddr"] + segment["offset"] + np.uint64(base + 2))
    addresses = rng.choice(np.concatenate(pools), (stacks, depth))
    addresses[:, :5] = rng.choice(kernel, (stacks, 5)) + np.uint64(2)
    rows = Stacks(
        offsets=np.arange(0, stacks * depth + 1, depth),
        addresses=addresses.ravel(),
        kernel_depth=np.full(stacks, 5, np.int32),
        process=rng.integers(0, processes, stacks).astype(np.int32),
        user_end=np.full(stacks, UserEnd.FRAME_POINTER, np.uint8),
    )
    return window_of(rows, sorted(mappings), builds)


def test_cost_of_a_steady_window():
    symbolizer, window = Symbolizer(), steady_window()
    costs_ms = []
    for _ in range(20):
        started = time.process_time()
        symbolised = symbolizer.symbolise(window)
        costs_ms.append((time.process_time() - started) * 1e3)
    states = symbolised.frames["state"].to_pylist()
    what = f"300 stacks of 30 frames, {len(states)} distinct"
    print(f"{what}: first {costs_ms[0]:.0f} ms, then {np.median(costs_ms):.2f} ms")
    assert states.count("ok") > 0.95 * len(states)
    assert np.median(costs_ms) < 25
