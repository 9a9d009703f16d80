"""`coprof replay`: saved windows become the same store as captured ones; what is no window is refused."""

import pytest
import sample_windows
from click.testing import CliRunner

from analysis.overview import read_overview
from profiler.saved_windows import FILE_SUFFIX, save
from storage.store import Store
from ui.cli import main

FAR = 2**62
WINDOW_NS = 10_000_000_000


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "windows"
    folder.mkdir()
    windows = [sample_windows.make_window(sample_windows.START_NS + number * WINDOW_NS) for number in range(3)]
    for window in windows:
        save(window, folder / f"{window.start_ns}{FILE_SUFFIX}")
    return folder, windows


def test_every_saved_window_is_stored(saved, tmp_path):
    folder, windows = saved
    answer = CliRunner().invoke(main, ["replay", str(folder), "-o", str(tmp_path / "store")])
    assert answer.exit_code == 0, answer.output
    assert answer.output.startswith("3 windows in ")
    overview = read_overview(Store.open(tmp_path / "store"), 0, FAR)
    assert overview.windows == 3
    assert overview.counters["samples"] == sum(len(window.samples) for window in windows)


def test_a_damaged_window_is_named(saved, tmp_path):
    folder, windows = saved
    damaged = folder / f"{windows[0].start_ns}{FILE_SUFFIX}"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    answer = CliRunner().invoke(main, ["replay", str(folder), "-o", str(tmp_path / "store")])
    assert answer.exit_code == 1
    assert str(damaged) in answer.output and "Traceback" not in answer.output


def test_a_folder_without_windows_is_refused(tmp_path):
    answer = CliRunner().invoke(main, ["replay", str(tmp_path), "-o", str(tmp_path / "store")])
    assert answer.exit_code == 2
    assert not (tmp_path / "store").exists()
