"""A writer killed with SIGKILL at any moment leaves a readable store of whole windows."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sample_windows import CALLS

from analysis.flame import read_flame
from storage.selection import Selection
from storage.store import Store
from storage.writer import StoreWriter

SAMPLES = sum(count for _, _, count in CALLS)
ROUNDS = 6
STEPS = 21  # of one append: 14 syncs and 7 renames

# Says the number of each window that `append` returned for: what was said must never be lost.
WRITER = """
import sys
from sample_windows import START_NS, WINDOW_NS, make_symbolised
from storage.rows import AgentCost
from storage.store import Store
from storage.writer import StoreWriter

first = int(sys.argv[2])
with StoreWriter(Store.open(sys.argv[1]), "node-a") as writer:
    for window in range(first, first + 100_000):
        symbolised = make_symbolised(START_NS + window * WINDOW_NS)
        print("begin", flush=True)
        writer.append(symbolised, AgentCost())
        print(window, flush=True)
"""


def environment():
    tests = Path(__file__).parents[1]
    return os.environ | {"PYTHONPATH": f"{tests.parent}:{tests}"}


def write_until_killed(root, first, delay_s):
    """Run a writer, kill it some time into an append, and count the windows that it said were stored."""
    command = [sys.executable, "-c", WRITER, str(root), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as writer:
        for _ in range(3):  # one whole window, and into the second
            assert writer.stdout.readline()
        try:
            writer.wait(delay_s)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().split()
        assert writer.wait() == -signal.SIGKILL
    return 1 + sum(word.isdigit() for word in said)


# Kills itself when the second append is about to take its n-th step.
SELF_KILLER = """
import os, signal, sys
from itertools import count
from pathlib import Path
from sample_windows import START_NS, WINDOW_NS, make_symbolised
from storage.rows import AgentCost
from storage.store import NS_PER_HOUR, Store
from storage.writer import StoreWriter

def killing(function, step=count(1)):
    def counted(*args):
        if next(step) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)
    return counted

with StoreWriter(Store.open(sys.argv[1], create=True), "node-a") as writer:
    writer.append(make_symbolised(START_NS), AgentCost())
    os.fsync, Path.rename = killing(os.fsync), killing(Path.rename)
    writer.append(make_symbolised(START_NS + NS_PER_HOUR), AgentCost())
"""


@pytest.mark.parametrize("step", range(1, STEPS + 2))
def test_a_kill_before_any_step_of_an_append(tmp_path, step):
    root = tmp_path / "store"
    command = [sys.executable, "-c", SELF_KILLER, str(root), str(step)]
    ended = subprocess.run(command, env=environment(), check=False).returncode
    assert ended == (0 if step > STEPS else -signal.SIGKILL)
    store = Store.open(root)
    flame = read_flame(store, Selection(0, 2**62))
    complete = 2 if step >= STEPS else 1  # the last step only makes the last rename durable
    assert (flame.windows, flame.tree.samples[0], flame.bad_segments) == (complete, complete * SAMPLES, ())
    StoreWriter(store, "node-a").close()
    left = {path.name for path in store.root.rglob("*") if path.is_file() and "samples" in path.parent.name}
    in_place = {path.name for path in store.segments("samples_10s", 0, 2**62)}
    trashed = {path.name for path in (store.root / "trash").rglob("*.parquet")}
    assert left - trashed == in_place
    assert len(in_place) == complete


def test_a_killed_writer_leaves_whole_windows(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    delays = random.Random(7)
    stored = begun = 0
    for _ in range(ROUNDS):
        stored += write_until_killed(store.root, begun, delays.uniform(0, 0.04))
        flame = read_flame(store, Selection(0, 2**62))
        assert flame.bad_segments == ()
        assert flame.tree.samples[0] == flame.windows * SAMPLES == flame.counters["samples"]
        assert "(stack lost)" not in flame.tree.names and "(frame lost)" not in flame.tree.names
        # The window in the making may have been completed just before the signal came.
        assert stored <= flame.windows <= stored + 1
        stored = flame.windows
        begun += 1_000
    with StoreWriter(store, "node-a"):
        assert not list(store.root.rglob("_*.tmp"))
    assert read_flame(store, Selection(0, 2**62)).windows == stored
