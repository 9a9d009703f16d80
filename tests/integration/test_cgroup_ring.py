"""Cgroup events out of a ring that has been around more than once. Needs root."""

import contextlib
import os

import numpy as np
import pytest

from profiler import layout
from profiler.cgroups import CgroupAction
from profiler.hierarchy import detect_hierarchy
from profiler.perf_events import attach_raw_tracepoint
from profiler.rings import CgroupRing
from profiler.sampler import load_cgroup_events

EVENTS = ("mkdir", "rmdir")


@pytest.fixture(scope="module")
def hierarchy():
    return detect_hierarchy("auto")


@pytest.fixture
def ring(hierarchy):
    with contextlib.ExitStack() as undo:
        loaded = load_cgroup_events(hierarchy)
        undo.callback(loaded.close)
        for event in EVENTS:
            link = attach_raw_tracepoint(f"cgroup_{event}", loaded.programs[f"on_cgroup_{event}"])
            undo.callback(os.close, link)
        yield CgroupRing(loaded)


def test_a_short_path_keeps_nothing_of_the_longer_one_that_lay_in_its_slot(hierarchy, ring):
    long, short = (f"coprof-ring-{os.getpid()}{'-long' * times}" for times in (30, 0))
    for name in (long, short):
        drained = []
        for _ in range(layout.CGROUP_SLOTS // len(EVENTS)):
            (hierarchy.mount_point / name).mkdir()
            (hierarchy.mount_point / name).rmdir()
            drained.append(ring.drain())
        events = np.concatenate(drained)
        ours = events[np.char.startswith(events["path"], f"/{short}".encode())]  # others may make cgroups, too
        assert set(ours["path"].tolist()) == {f"/{name}".encode()}
        assert ours["action"].tolist() == [CgroupAction.MADE, CgroupAction.REMOVED] * (layout.CGROUP_SLOTS // 2)
    assert ring.take_lost() == 0
