"""Drained batches to one window: numbers for cgroups, processes, stacks and builds, the mappings they need, counters.

Pure but for the tables it is given: what it makes depends on batches and tables alone, so it is tested without BPF.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from profiler import layout
from profiler.accounting import Accounts
from profiler.cgroups import CgroupTable
from profiler.mappings import MappingTable, ProcessKey
from profiler.rings import Batch
from profiler.waits import delay_rows, group_cgroups, interference_rows
from profiler.window import MAPPING, PROCESS, SAMPLE, Build, Node, Stacks, UserEnd, Window

_PROCESS_FIELDS = ["tgid", "exec_id", "process_start_ns"]


def close_window(
    span_ns: tuple[int, int],
    node: Node,
    samples: npt.NDArray[np.void],
    batches: Sequence[Batch],
    cgroup_table: CgroupTable,
    mapping_table: MappingTable,
    counters: Mapping[str, int],
    accounts: Accounts | None = None,
) -> Window:
    """Build the window of `samples` (`coprof_sample`, `ts_ns` as Unix time) drained between the two times of `span_ns`.

    `batches` hold the stack records that the samples may name: those of this window's drains and of the one before,
    since a sample that was under way when the generation changed names a stack of the old one.
    """
    samples = samples[np.argsort(samples["ts_ns"], kind="stable")]
    ts_ns = samples["ts_ns"].astype(np.int64)
    account_ids = np.zeros(0, np.uint64) if accounts is None else accounts.cgroup_ids
    is_cgroup = account_ids != 0
    lives = cgroup_table.lives(
        np.concatenate([samples["cgroup_id"], account_ids[is_cgroup]]),
        np.concatenate([ts_ns, np.full(is_cgroup.sum(), span_ns[1])]),
    )
    keys, process = np.unique(samples[_PROCESS_FIELDS], return_inverse=True)
    processes = _process_rows(keys)
    stacks, stack = _select_stacks(batches, samples["stack_id"], process)
    mappings, builds, unread = _select_mappings(mapping_table, processes, stacks)
    rows = np.zeros(len(samples), dtype=SAMPLE)
    rows["ts_ns"], rows["weight_ns"] = ts_ns, 1_000_000_000 // node.sample_hz
    rows["cgroup"], rows["process"], rows["stack"] = lives.rows[: len(rows)], process, stack
    rows["tid"], rows["cpu"], rows["comm"] = samples["tid"], samples["cpu"], samples["comm"]
    is_late = (samples["stack_id"] != 0) & (stacks.user_end[stack] == UserEnd.LOST)
    totals = {
        **counters,
        "samples": len(rows),
        "lost_stack_late": int(is_late.sum()),
        "unnamed_cgroups": lives.unnamed,
        "unread_mappings": unread,
    }
    cgroups, waits = lives.cgroups, {}
    if accounts is not None:
        groups = group_cgroups(node)
        slot_rows = np.full(len(account_ids), -1, np.int32)
        slot_rows[is_cgroup] = lives.rows[len(rows) :]
        slot_rows[list(groups)] = len(cgroups) + np.arange(len(groups))
        cgroups += tuple(groups.values())
        waits = {
            "delays": delay_rows(accounts, slot_rows),
            "interference": interference_rows(accounts, slot_rows),
        }
        totals |= accounts.counters
    return Window(
        start_ns=span_ns[0],
        end_ns=span_ns[1],
        node=node,
        samples=rows,
        stacks=stacks,
        processes=processes,
        mappings=mappings,
        builds=builds,
        cgroups=cgroups,
        counters={name: count for name, count in totals.items() if count},
        **waits,
    )


def process_keys(samples: npt.NDArray[np.void]) -> list[ProcessKey]:
    """Distinct processes of drained samples."""
    keys: list[ProcessKey] = np.unique(samples[_PROCESS_FIELDS]).tolist()
    return keys


def uncovered_processes(batches: Sequence[Batch], table: MappingTable) -> list[ProcessKey]:
    """Processes with a program counter outside the mappings known of them: they have mapped code since.

    Only the first user address counts; frame pointers of code without them lead anywhere.
    """
    uncovered: dict[ProcessKey, None] = {}  # a set that keeps the order
    for batch in batches:
        stacks = batch.stacks[batch.stacks["user_depth"] > 0]
        first_user = batch.offsets[:-1][batch.stacks["user_depth"] > 0] + stacks["kernel_depth"]
        keys, rows = np.unique(stacks[_PROCESS_FIELDS], return_inverse=True)
        for row, key in enumerate(keys.tolist()):
            if not table.covers(key, batch.addresses[first_user[rows == row]]):
                uncovered[key] = None
    return list(uncovered)


def _process_rows(keys: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    processes = np.zeros(len(keys), dtype=PROCESS)
    for name, source in zip(("tgid", "exec_id", "start_ns"), _PROCESS_FIELDS, strict=True):
        processes[name] = keys[source]
    return processes


def _select_stacks(
    batches: Sequence[Batch], stack_ids: npt.NDArray[np.uint64], process: npt.NDArray[np.intp]
) -> tuple[Stacks, npt.NDArray[np.int32]]:
    """The distinct stacks that the samples name, and for each sample its row. Ids without a record are lost stacks."""
    records = np.concatenate([batch.stacks for batch in batches] or [np.zeros(0, layout.coprof_stack)])
    addresses = np.concatenate([batch.addresses for batch in batches] or [np.zeros(0, np.uint64)])
    depths = records["kernel_depth"].astype(np.int64) + records["user_depth"]
    starts = np.cumsum(depths) - depths  # batches lie one after the other, as their addresses do
    known_ids, known_rows = np.unique(records["stack_id"], return_index=True)
    used_ids, first_sample, stack = np.unique(stack_ids, return_index=True, return_inverse=True)
    is_known = np.isin(used_ids, known_ids)
    record_rows = known_rows[np.searchsorted(known_ids, used_ids[is_known])]
    used_depths = np.zeros(len(used_ids), dtype=np.int64)
    used_starts = np.zeros(len(used_ids), dtype=np.int64)
    used_depths[is_known], used_starts[is_known] = depths[record_rows], starts[record_rows]
    offsets = np.concatenate([[0], np.cumsum(used_depths)]).astype(np.int64)
    taken = np.repeat(used_starts - offsets[:-1], used_depths) + np.arange(offsets[-1])
    kernel_depth = np.zeros(len(used_ids), dtype=np.int32)
    kernel_depth[is_known] = records["kernel_depth"][record_rows]
    user_end = np.full(len(used_ids), UserEnd.LOST, dtype=np.uint8)
    user_end[is_known] = records["user_end"][record_rows]
    has_user_part = ~np.isin(user_end, (UserEnd.NONE, UserEnd.LOST))
    owner = np.where(has_user_part, process[first_sample], -1).astype(np.int32)
    return Stacks(offsets, addresses[taken], kernel_depth, owner, user_end), stack.astype(np.int32)


def _select_mappings(
    table: MappingTable, processes: npt.NDArray[np.void], stacks: Stacks
) -> tuple[npt.NDArray[np.void], tuple[Build, ...], int]:
    """Mappings of the window's processes with user stacks, the builds they name, and how many could not be read."""
    parts: list[npt.NDArray[np.void]] = []
    unread = 0
    for row in np.unique(stacks.process[stacks.process >= 0]).tolist():
        known = table.of(tuple(processes[row].tolist()))
        if known is None:
            unread += 1
            continue
        part = known.copy()
        part["process"] = row
        parts.append(part)
    mappings = np.concatenate(parts) if parts else np.zeros(0, dtype=MAPPING)
    numbers, build_rows = np.unique(mappings["build"], return_inverse=True)
    mappings["build"] = build_rows
    return mappings, tuple(table.builds[number] for number in numbers.tolist()), unread
