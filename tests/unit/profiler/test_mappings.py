"""Mappings of processes in a made-up /proc: hostile names, files that are none, pids that come back, bounds."""

import errno
import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from profiler import mappings
from profiler.build_id import read_build_id
from profiler.mappings import MappingTable

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
STARTED_S = 50
CODE = 0x55D0_0000_0000


def key_of(tgid, exec_id=1, started_s=STARTED_S):
    return (tgid, exec_id, started_s * 1_000_000_000)


class Proc:
    """A /proc whose processes map what a test says."""

    def __init__(self, root):
        self.root = root

    def start(self, tgid, *areas, started_s=STARTED_S, comm="web"):
        """Areas are (start, end, path, file or None); a file is what map_files leads to."""
        process = self.root / str(tgid)
        (process / "map_files").mkdir(parents=True, exist_ok=True)
        lines = []
        for start, end, path, file in areas:
            inode = file.lstat().st_ino if file is not None and os.path.lexists(file) else int(file is not None)
            lines.append(f"{start:08x}-{end:08x} r-xp 00001000 fe:01 {inode}".ljust(73) + path)
            link = process / f"map_files/{start:x}-{end:x}"
            link.unlink(missing_ok=True)
            if file is not None:
                link.symlink_to(file)
        (process / "maps").write_bytes(b"".join(os.fsencode(line.rstrip(" ")) + b"\n" for line in lines))
        fields = ["S", *["0"] * 18, str(started_s * TICKS_A_SECOND), *["0"] * 30]
        (process / "stat").write_text(f"{tgid} ({comm}) {' '.join(fields)}\n")
        return key_of(tgid, started_s=started_s)

    def end(self, tgid):
        for file in sorted((self.root / str(tgid)).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        (self.root / str(tgid)).rmdir()


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "proc").mkdir()
    return Proc(tmp_path / "proc")


def open_files():
    return {file.name: target(file) for file in Path("/proc/self/fd").iterdir()}


def target(file):
    try:
        return str(file.readlink())
    except OSError as error:  # the descriptor of the listing itself
        assert error.errno == errno.ENOENT
        return ""


@pytest.fixture
def table(proc):
    table = MappingTable(proc.root)
    yield table
    table.close()
    held = [path for path in open_files().values() if path.startswith(str(proc.root.parent))]
    assert not held, "a closed table holds no file open"


@pytest.fixture
def make_file(tmp_path):
    def make(name="app", content=b"not an ELF file"):
        file = tmp_path / "files" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        return file

    return make


def area(number, path, file, pages=1):
    start = CODE + number * 0x10_0000
    return (start, start + pages * 0x1000, path, file)


def builds_of(table, key):
    return [table.builds[number] for number in table.of(key)["build"].tolist()]


def test_a_mapping_leads_to_its_build(proc, table, tmp_path):
    program = Path(sys.executable).resolve()
    key = proc.start(10, area(0, "/app/python", program))
    table.note(key)
    assert table.of(key).tolist() == [(0, 0, CODE, CODE + 0x1000, 0x1000)]
    (build,) = builds_of(table, key)
    with program.open("rb") as file:
        assert (build.build_id, build.reason) == read_build_id(file.fileno())
    assert build.build_id and build.path == "/app/python"
    assert build.size_bytes == program.stat().st_size
    assert Path(build.sources[0]).samefile(program)
    assert build.sources[1:] == (f"{proc.root}/10/root/app/python", "/app/python")


def test_low_addresses_are_padded_in_maps_but_not_in_map_files(proc, table, make_file):
    key = proc.start(10, (0x40_0000, 0x40_1000, "/app", make_file()))
    assert "00400000-00401000" in (proc.root / "10/maps").read_text()
    table.note(key)
    (build,) = builds_of(table, key)
    assert build.size_bytes == len(b"not an ELF file"), "the file was found"
    assert build.reason == "not an ELF file"


def test_only_executable_mappings_count_and_are_sorted(proc, table, make_file):
    key = proc.start(10, area(3, "/b", make_file("b")), area(1, "/a", make_file("a")))
    maps = proc.root / "10/maps"
    maps.write_text("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 [heap]\n" + maps.read_text())
    table.note(key)
    assert [build.path for build in builds_of(table, key)] == ["/a", "/b"]


def test_a_deleted_file_is_still_read_and_named_as_it_was(proc, table, make_file):
    key = proc.start(10, area(0, "/usr/lib/libx.so (deleted)", make_file()))
    table.note(key)
    (build,) = builds_of(table, key)
    assert (build.path, build.size_bytes) == ("/usr/lib/libx.so", 15)
    assert Path(build.sources[0]).read_bytes() == b"not an ELF file"


def test_code_without_a_file(proc, table):
    areas = ("[vdso]", "", "[anon:JIT code of somebody]", "anon_inode:[perf_event]", "[anon:other]")
    key = proc.start(10, *(area(number, path, None) for number, path in enumerate(areas)))
    table.note(key)
    builds = builds_of(table, key)
    assert [build.path for build in builds] == ["[vdso]", "[anon]", "[anon]", "[anon]", "[anon]"]
    assert {(build.build_id, build.sources) for build in builds} == {("", ())}
    assert all(build.reason for build in builds)
    assert len(table.builds) == 2, "a process cannot fill the table with names of its memory"


@pytest.mark.parametrize(
    "path", ["/with some  spaces/x", r"/new\012line", "/ends with space ", "/x (deleted) y", "/\udcff"]
)
def test_odd_paths_are_kept_as_the_kernel_wrote_them(proc, table, make_file, path):
    key = proc.start(10, area(0, path, make_file()), area(1, "/after", make_file("after")))
    maps = proc.root / "10/maps"
    maps.write_bytes(maps.read_bytes().replace(os.fsencode(path.rstrip(" ")) + b"\n", os.fsencode(path) + b"\n"))
    table.note(key)
    assert [build.path for build in builds_of(table, key)] == [path, "/after"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
def test_what_is_no_regular_file_is_not_opened(proc, table, tmp_path, kind, monkeypatch):
    node = tmp_path / "node"
    if kind == "directory":
        node.mkdir()
    elif kind == "fifo":
        os.mkfifo(node)
    else:
        os.mknod(node, 0o140644)
    opened = []
    really_open = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(path) or really_open(path, *rest))
    key = proc.start(10, area(0, "/node", node))
    table.note(key)
    (build,) = builds_of(table, key)
    assert (build.reason, build.sources, opened) == ("not a regular file", (), [])


def test_a_file_that_is_gone_has_a_reason(proc, table, tmp_path):
    key = proc.start(10, area(0, "/app", tmp_path / "nothing"))
    table.note(key)
    (build,) = builds_of(table, key)
    assert build.path == "/app" and "file gone" in build.reason and build.sources == ()


def test_a_file_that_cannot_be_opened_has_a_reason(proc, table, make_file, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    key = proc.start(10, area(0, "/app", make_file()))
    table.note(key)
    (build,) = builds_of(table, key)
    assert "cannot be opened (Permission denied)" in build.reason


def test_equal_files_are_one_build_in_all_processes(proc, table, make_file):
    libc = make_file("libc.so")
    keys = [proc.start(tgid, area(tgid, "/libc.so", libc)) for tgid in (10, 11)]
    for key in keys:
        table.note(key)
    assert len(table.builds) == 1
    assert sum(path.endswith("/libc.so") for path in open_files().values()) == 1


def test_equal_paths_in_two_containers_are_two_builds(proc, table, make_file):
    keys = [proc.start(tgid, area(0, "/app", make_file(f"{tgid}"))) for tgid in (10, 11)]
    for key in keys:
        table.note(key)
    assert [build.path for build in table.builds.values()] == ["/app", "/app"]


def test_a_file_that_was_changed_is_another_build(proc, table, make_file):
    file = make_file()
    old = proc.start(10, area(0, "/app", file))
    table.note(old)
    os.utime(file, ns=(1, 1))  # rewritten in place: the same inode and size
    new = proc.start(11, area(0, "/app", file))
    table.note(new)
    assert table.of(old)["build"] != table.of(new)["build"]


def test_a_pid_that_came_back_gives_nothing(proc, table, make_file):
    proc.start(10, area(0, "/other", make_file()), started_s=STARTED_S + 1)
    table.note(key_of(10))
    assert table.of(key_of(10)) is None
    assert not table.builds


@pytest.mark.parametrize("rounding_ns", [0, 9_999_999, 10_000_000, -1])
def test_the_start_time_is_compared_by_the_tick(proc, table, make_file, rounding_ns):
    tgid, exec_id, start_ns = proc.start(10, area(0, "/app", make_file()))
    key = (tgid, exec_id, start_ns + rounding_ns)
    table.note(key)
    assert table.of(key) is not None


def test_a_program_may_call_itself_anything(proc, table, make_file):
    key = proc.start(10, area(0, "/app", make_file()), comm="x) S 1 2 (3")
    table.note(key)
    assert table.of(key) is not None


def test_a_process_that_is_gone_is_looked_for_once_a_window(proc, table, make_file):
    table.note(key_of(10))
    proc.start(10, area(0, "/app", make_file()))
    table.note(key_of(10))
    assert table.of(key_of(10)) is None
    table.forget_unread()
    table.note(key_of(10))
    assert len(table.of(key_of(10))) == 1


def test_a_process_that_has_ended_keeps_its_mappings(proc, table, make_file):
    key = proc.start(10, area(0, "/app", make_file()))
    table.note(key)
    proc.end(10)
    table.read(key)
    assert len(table.of(key)) == 1


def test_a_zombie_has_no_memory_to_read(proc, table, make_file):
    key = proc.start(10, area(0, "/app", make_file()))
    table.note(key)
    (proc.root / "10/maps").write_bytes(b"")
    table.read(key)
    assert len(table.of(key)) == 1, "what was read while it lived is kept"
    proc.start(11)
    table.note(key_of(11))
    assert table.of(key_of(11)) is None, "it counts as unread, not as a process without code"


def test_mappings_are_read_again_on_demand_only(proc, table, make_file):
    key = proc.start(10, area(0, "/app", make_file()))
    table.note(key)
    proc.start(10, area(0, "/app", make_file()), area(1, "/plugin", make_file("plugin")))
    table.note(key)
    assert len(table.of(key)) == 1
    table.read(key)
    assert [build.path for build in builds_of(table, key)] == ["/app", "/plugin"]


def test_a_process_covers_its_mappings_and_no_more(proc, table, make_file):
    key = proc.start(10, area(0, "/app", make_file(), pages=2), area(1, "/lib", make_file("lib")))
    table.note(key)

    def covers(*addresses):
        return table.covers(key, np.array(addresses, np.uint64))

    assert covers() and covers(CODE, CODE + 0x1FFF, CODE + 0x10_0FFF)
    assert not covers(CODE, CODE - 1)
    assert not covers(CODE + 0x2000)
    assert not covers(CODE + 0x10_1000)
    assert not covers(2**64 - 1)
    assert table.covers(key_of(99), np.array([1], np.uint64)), "unread processes are not asked for"


def test_a_process_without_executable_memory_covers_nothing(proc, table):
    key = proc.start(10)
    (proc.root / "10/maps").write_text("7f0000000000-7f0000001000 rw-p 00000000 00:00 0\n")
    table.note(key)
    assert len(table.of(key)) == 0
    assert not table.covers(key, np.array([1], np.uint64))


def test_files_held_open_are_bounded_and_closed_ones_lose_the_name_of_their_descriptor(
    proc, table, make_file, monkeypatch
):
    monkeypatch.setattr(mappings, "MAX_OPEN_FILES", 3)
    files = [make_file(f"lib{number}") for number in range(7)]
    key = proc.start(10, *(area(number, f"/lib{number}", file) for number, file in enumerate(files)))
    table.note(key)
    builds = builds_of(table, key)
    has_descriptor = [build.sources[0].startswith(f"/proc/{os.getpid()}/fd/") for build in builds]
    assert has_descriptor == [False] * 4 + [True] * 3
    for build, file, is_open in zip(builds, files, has_descriptor, strict=True):
        assert build.sources[is_open:] == (f"{proc.root}/10/root{build.path}", build.path)
        assert not is_open or Path(build.sources[0]).samefile(file)
    held = {path for path in open_files().values() if "/files/lib" in path}
    assert held == {str(file) for file in files[4:]}


def test_without_descriptors_a_process_stays_unread(proc, table, make_file):
    key = proc.start(10, area(0, "/app", make_file()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        table.note(key)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert table.of(key) is None
    table.forget_unread()
    table.note(key)
    assert table.of(key) is not None


def test_files_that_are_mapped_again_stay_open_longest(proc, table, make_file, monkeypatch):
    monkeypatch.setattr(mappings, "MAX_OPEN_FILES", 2)
    libc = area(0, "/libc.so", make_file("libc.so"))
    for tgid in range(10, 15):
        table.note(proc.start(tgid, libc, area(1, f"/app{tgid}", make_file(f"app{tgid}"))))
    held = {Path(path).name for path in open_files().values() if "/files/" in path}
    assert held == {"libc.so", "app14"}


def test_processes_are_bounded_and_the_least_recently_sampled_goes(proc, table, make_file, monkeypatch):
    monkeypatch.setattr(mappings, "MAX_PROCESSES", 3)
    keys = [proc.start(tgid, area(0, "/app", make_file())) for tgid in range(10, 14)]
    for key in keys[:3]:
        table.note(key)
    table.note(keys[0])
    table.note(keys[3])
    assert [table.of(key) is not None for key in keys] == [True, False, True, True]


def test_builds_that_no_process_maps_are_forgotten_when_there_are_many(proc, table, make_file, monkeypatch):
    monkeypatch.setattr(mappings, "MAX_PROCESSES", 2)
    monkeypatch.setattr(mappings, "MAX_BUILDS", 4)
    for tgid in range(10, 30):
        key = proc.start(tgid, area(0, "/app", make_file(f"app{tgid}")), area(1, "[vdso]", None))
        table.note(key)
        assert [build.path for build in builds_of(table, key)] == ["/app", "[vdso]"]
        assert len(table.builds) <= 4
    held = {Path(path).name for path in open_files().values() if "/files/" in path}
    assert {"app28", "app29"} <= held and len(held) <= 3, "files of forgotten builds are closed"


def test_a_build_that_was_forgotten_comes_back_under_a_new_number(proc, table, make_file, monkeypatch):
    monkeypatch.setattr(mappings, "MAX_PROCESSES", 1)
    monkeypatch.setattr(mappings, "MAX_BUILDS", 1)
    file = make_file()
    first = proc.start(10, area(0, "/app", file))
    table.note(first)
    (number,) = table.of(first)["build"].tolist()
    table.note(proc.start(11, area(0, "/a", make_file("a")), area(1, "/b", make_file("b"))))
    table.note(first)
    assert table.of(first)["build"].tolist() != [number]
    assert [build.path for build in builds_of(table, first)] == ["/app"]


def test_maps_are_read_up_to_a_limit(proc, table, make_file, monkeypatch):
    key = proc.start(10, *(area(number, f"/lib{number}", make_file(f"{number}")) for number in range(5)))
    line = (proc.root / "10/maps").read_bytes().index(b"\n") + 1
    monkeypatch.setattr(mappings, "MAX_MAPS_BYTES", 3 * line)
    table.note(key)
    assert len(table.of(key)) == 3


def test_our_own_process_is_read_like_any_other():
    boot_ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    key = (os.getpid(), 1, boot_ticks * 1_000_000_000 // TICKS_A_SECOND)
    before = open_files()
    table = MappingTable()
    table.note(key)
    paths = {build.path for build in builds_of(table, key)}
    assert str(Path(sys.executable).resolve()) in paths and "[vdso]" in paths
    table.close()
    assert open_files().keys() == before.keys()
