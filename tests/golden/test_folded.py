"""The folded form of the sample windows, from the store, as people will read it."""

import pytest
from sample_windows import START_NS, WINDOW_NS, make_symbolised

from analysis.flame import read_flame
from analysis.folded import folded_lines
from storage.rows import AgentCost
from storage.selection import Selection
from storage.store import Store
from storage.writer import StoreWriter


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    with StoreWriter(store, "node-a") as writer:
        for window in range(2):
            writer.append(make_symbolised(START_NS + window * WINDOW_NS), AgentCost())
    return store


@pytest.mark.parametrize(
    "name, chosen, count_samples",
    [
        ("folded.txt", {}, False),
        ("folded--samples.txt", {}, True),
        ("folded--workload=web.txt", {"workload": "web"}, False),
    ],
)
def test_folded(store, check_golden, name, chosen, count_samples):
    tree = read_flame(store, Selection(START_NS, START_NS + 2 * WINDOW_NS, **chosen)).tree
    check_golden(name, "".join(f"{line}\n" for line in folded_lines(tree, count_samples)))
