"""Windows to files and back: equal when whole, refused in one line when not."""

import dataclasses
import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_windows import START_NS, WINDOW_NS, make_cgroup, make_window, with_waits

from profiler.errors import BadInput, CorruptData
from profiler.saved_windows import FILE_SUFFIX, FORMAT_VERSION, load, replay, save
from profiler.window import DELAY, MAPPING, Build

in_one_directory = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ARRAYS = ("samples", "processes", "mappings", "delays", "interference")


def rich_window():
    """A window with something in every table, and names that are no text."""
    window = with_waits(make_window(counters={"lost_ring_full": 2**40}))
    return dataclasses.replace(
        window,
        mappings=np.array([(0, 0, 2**63, 2**64 - 1, 4096), (1, 1, 4096, 8192, 0)], MAPPING),
        builds=(
            Build("ab" * 20, '/usr/bin/\udcff \n"x"', 2**40, ("/proc/1/fd/3", "/usr/bin/x")),
            Build("", "[anon]", reason="no file behind this memory"),
            *window.builds[2:],
        ),
        cgroups=(make_cgroup("größe", cg=-(2**63), kernel_id=2**63, end_ns=START_NS), *window.cgroups[1:]),
    )


def assert_equal(loaded, saved):
    for field in dataclasses.fields(saved):
        ours, theirs = getattr(loaded, field.name), getattr(saved, field.name)
        if field.name == "stacks":
            for name, column in vars(theirs).items():
                assert_same_array(getattr(ours, name), column)
        elif field.name in ARRAYS:
            assert_same_array(ours, theirs)
        else:
            assert ours == theirs, field.name


def assert_same_array(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.tobytes() == theirs.tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / f"{START_NS}{FILE_SUFFIX}"


def whole_file(path):
    save(rich_window(), path)
    return path.read_bytes()


@pytest.mark.parametrize("window", [rich_window(), make_window(calls=())], ids=["rich", "empty"])
def test_a_window_comes_back_as_it_was(window, path):
    save(window, path)
    assert_equal(load(path), window)


def test_saving_replaces_the_file_and_leaves_nothing_else(path):
    save(make_window(), path)
    save(rich_window(), path)
    assert_equal(load(path), rich_window())
    assert list(path.parent.iterdir()) == [path]


def test_every_shorter_file_is_damaged(path):
    for length in reversed(range(len(whole_file(path)))):
        os.truncate(path, length)
        with pytest.raises(CorruptData, match="remove the file"):
            load(path)


@in_one_directory
@given(st.data())
def test_flipped_bytes_are_found_or_change_nothing(path, data):
    content = bytearray(whole_file(path))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = load(path)
    except CorruptData as error:
        assert "\n" not in str(error)
    else:
        assert_equal(loaded, rich_window())


def test_every_byte_of_the_archives_own_directory_may_be_flipped(path):
    content = whole_file(path)
    refused = 0
    for at in range(content.index(b"PK\x01\x02"), len(content)):  # zipfile calls some of these a foreign compression
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            assert_equal(load(path), rich_window())
        except CorruptData:
            refused += 1
    assert refused > 100


def test_a_flipped_bit_in_a_stored_array_is_found(path):
    """Stored without compression, only the checksum tells."""
    save(rich_window(), path)
    with np.load(path) as arrays:
        np.savez(path, **dict(arrays))
    content = bytearray(path.read_bytes())
    at = content.index(rich_window().samples.tobytes()) + 3
    assert_equal(load(path), rich_window())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptData):
        load(path)


@in_one_directory
@given(st.binary(max_size=200))
def test_other_files_are_damaged_windows(path, content):
    path.write_bytes(content)
    with pytest.raises(CorruptData):
        load(path)


def rewrite(path, change_header=None, **arrays):
    """Save a window with a changed header or other arrays, checksums and all."""
    save(rich_window(), path)
    with np.load(path) as loaded:
        contents = dict(loaded) | arrays
    if change_header:
        header = change_header(json.loads(contents["header"].tobytes()))
        contents["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez_compressed(path, **{name: array for name, array in contents.items() if array is not None})


@pytest.mark.parametrize("version", [FORMAT_VERSION - 1, FORMAT_VERSION + 1, "1", None])
def test_another_format_version_is_refused(path, version):
    rewrite(path, lambda header: header | {"format_version": version})
    with pytest.raises(CorruptData):
        load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: [],
        lambda header: None,
        lambda header: header | {"node": {}},
        lambda header: header | {"node": []},
        lambda header: header | {"builds": [{}]},
        lambda header: header | {"builds": [None]},
        lambda header: header | {"builds": [{"sources": None}]},
        lambda header: header | {"cgroups": [{"unknown": 1}]},
        lambda header: {"format_version": FORMAT_VERSION},
    ],
)
def test_a_foreign_header_is_refused(path, change):
    rewrite(path, change)
    with pytest.raises(CorruptData):
        load(path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"samples": None},
        {"header": None},
        {"offsets": None},
        {"samples": np.zeros(3)},
        {"mappings": np.zeros(1, MAPPING.descr[:-1])},
        {"delays": np.zeros(1, DELAY.descr[:-1])},
        {"interference": None},
        {"header": np.frombuffer(b"\xff{", np.uint8)},
    ],
)
def test_foreign_arrays_are_refused(path, arrays):
    rewrite(path, **arrays)
    with pytest.raises(CorruptData):
        load(path)


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, directory):
        self.directory = directory

    def __reduce__(self):
        return os.mkdir, (str(self.directory),)


def test_pickles_are_refused_unopened(path):
    sprung = path.parent / "sprung"
    rewrite(path, header=np.array([Trap(sprung)], object))
    with pytest.raises(CorruptData):
        load(path)
    assert not sprung.exists()


def test_a_member_that_is_no_array_is_refused(path):
    save(rich_window(), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(CorruptData):
        load(path)


def test_an_array_that_claims_more_than_there_is_is_refused(path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<u8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", header.getvalue())
    with pytest.raises(CorruptData):
        load(path)


def test_a_missing_file_is_the_users_mistake(path):
    with pytest.raises(BadInput, match="No such file"):
        load(path)
    with pytest.raises(BadInput, match="No such file"):
        list(replay([path]))


def test_a_directory_is_replayed_in_order_of_time(tmp_path):
    starts = [START_NS + number * WINDOW_NS for number in range(3)]
    for start_ns in reversed(starts):
        save(make_window(start_ns), tmp_path / f"{start_ns}{FILE_SUFFIX}")
    (tmp_path / "notes.txt").write_text("not a window")
    (tmp_path / f"_{START_NS}{FILE_SUFFIX}.tmp").write_text("half a window")
    assert [window.start_ns for window in replay([tmp_path])] == starts


def test_files_are_replayed_in_the_order_given(tmp_path):
    first, second = tmp_path / f"a{FILE_SUFFIX}", tmp_path / f"b{FILE_SUFFIX}"
    save(make_window(), first)
    save(make_window(START_NS + WINDOW_NS), second)
    assert [window.start_ns for window in replay([second, first])] == [START_NS + WINDOW_NS, START_NS]


def test_windows_are_loaded_one_at_a_time(tmp_path):
    save(make_window(), tmp_path / f"a{FILE_SUFFIX}")
    (tmp_path / f"b{FILE_SUFFIX}").write_bytes(b"damaged")
    windows = replay([tmp_path])
    assert next(windows).start_ns == START_NS
    with pytest.raises(CorruptData):
        next(windows)


def test_a_directory_without_windows_is_the_users_mistake(tmp_path):
    with pytest.raises(BadInput, match="no saved windows"):
        list(replay([tmp_path]))
