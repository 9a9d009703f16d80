"""Busy time out of a recorded /proc/stat."""

import os

import pytest

from profiler.cpu_time import read_busy_ns

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# Of a machine of two CPUs under KVM: user nice system idle iowait irq softirq steal guest guest_nice.
RECORDED = """\
cpu  1016822 41 220171 10402417 20714 3 9127 812 70 5
cpu0 508411 20 110085 5201208 10357 1 4563 406 35 2
cpu1 508411 21 110086 5201209 10357 2 4564 406 35 3
intr 154874161 0 0 0
btime 1764500400
"""


def read(tmp_path, text):
    file = tmp_path / "stat"
    file.write_text(text)
    return read_busy_ns(file)


def test_busy_is_user_nice_system_and_interrupts(tmp_path):
    """Not steal, in which no sample can be taken, and not guest, which user time holds already."""
    assert read(tmp_path, RECORDED) == (1016822 + 41 + 220171 + 3 + 9127) * TICK_NS


def test_kernels_without_the_later_fields_are_read(tmp_path):
    assert read(tmp_path, "cpu  1 2 3 4 5 6 7\n") == (1 + 2 + 3 + 6 + 7) * TICK_NS


@pytest.mark.parametrize("field", [3, 4, 7, 8, 9])
def test_idle_stolen_and_guest_time_is_not_busy(tmp_path, field):
    fields = [10] * 10
    more = [*fields[:field], 99, *fields[field + 1 :]]
    assert len({read(tmp_path, f"cpu  {' '.join(map(str, row))}\n") for row in (fields, more)}) == 1


def test_this_machine_has_been_busy():
    first = read_busy_ns()
    assert 0 < first <= read_busy_ns()
