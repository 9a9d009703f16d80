"""Gives every sample's kernel cgroup id the name that it had when the sample was taken.

A scan of the hierarchy names what is there; life events from the kernel (made, removed, renamed) keep that true. A
removed cgroup keeps its name for a while, because its last samples arrive after it has gone. A kernel id that was
removed and made again is another *life* with another key. What can be named by neither counts as unnamed.

Start the events first, then scan: a cgroup made in between is then seen twice, which is harmless, and never missed.
Events cost Python each; they are cgroups coming and going, not samples. Look-ups for samples are array operations.
One thread at a time.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from profiler.hierarchy import Hierarchy, is_whole_hierarchy, printable, read_cpu_share, scan_cgroups
from profiler.window import Cgroup
from profiler.workloads import UNKNOWN_WORKLOAD, CpuShare, Identity, WorkloadRules

# One row a cgroup that came, went or changed its name; as the BPF program hands it over.
CGROUP_EVENT = np.dtype(
    [
        ("ts_ns", "<i8"),  # Unix time
        ("kernel_id", "<u8"),
        ("action", "<u4"),  # `CgroupAction`
        ("path", "S1000"),  # inside the hierarchy; cut at PATH_LIMIT_BYTES, empty where it could not be read
    ]
)
PATH_LIMIT_BYTES = 999

RETENTION_NS = 600_000_000_000  # late samples come within a window or two; ten minutes also cover a stalled store
MAX_REMOVED = 20_000  # lives that ended and are still remembered, about 500 bytes each
SCAN_PAUSE_NS = 5_000_000_000
SCAN_SHARE = 50  # and at least this many times the last scan's length: rescans take at most 2 % of a CPU
SHARE_AGE_NS = 10_000_000_000  # a CPU share older than this is read again when its cgroup is looked up
_SAME_LIFE_NS = 1_000_000_000  # an event this little later than the scan that found its cgroup is of the same life
_MAX_ABSENT = 100_000
_DEFAULT_SHARE = CpuShare()


class CgroupAction(IntEnum):
    """What happened to a cgroup."""

    MADE = 1
    REMOVED = 2
    RENAMED = 3


@dataclass(frozen=True)
class Lives:
    """The answer to a look-up: sample `i` belongs to `cgroups[rows[i]]`. Every cgroup in it is used."""

    rows: npt.NDArray[np.int32]
    cgroups: tuple[Cgroup, ...]
    unnamed: int  # cgroups among them whose path is not known


@dataclass(slots=True, eq=False)
class _Life:
    kernel_id: int
    number: int  # part of the key: 0, or for a later life of the same id the time it was learned of
    path: str  # "" where not known
    start_ns: int
    found_ns: int
    end_ns: int = 0
    is_scanned: bool = False  # a scan has found it, so a later scan that does not find it proves its end
    is_end_guessed: bool = False  # it ended some time before the scan that missed it
    cpu_share: CpuShare = _DEFAULT_SHARE
    cpu_share_read_ns: int = 0


@dataclass(frozen=True)
class _Index:
    """All lives by (kernel id, start), for binary search."""

    lives: list[_Life]
    kernel_ids: npt.NDArray[np.uint64]
    start_ns: npt.NDArray[np.int64]


class CgroupTable:
    """Every cgroup life of one hierarchy that samples may still refer to. Empty until `scan`."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        rules: WorkloadRules,
        *,
        node_name: str,
        boot_id: str,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.hierarchy = hierarchy
        self._rules = rules
        self._node_name = node_name
        self._boot_id = boot_id
        self._clock_ns = clock_ns
        self._lives: dict[int, list[_Life]] = {}  # by kernel id, oldest first
        self._removed: deque[_Life] = deque()  # in the order of removal
        self._incomplete: set[int] = set()  # kernel ids of which no event and no scan has given the whole path
        self._absent: set[int] = set()  # kernel ids that were sampled and that a scan did not find
        self._cpu_shares: dict[str, CpuShare] = {}  # by path, read during the present call
        self._highest_forgotten = 0
        self._index: _Index | None = None  # built when needed
        self._last_scan_ns = 0
        self._scan_pause_ns = 0

    def __len__(self) -> int:
        """Return the number of lives known, ended ones included."""
        return sum(map(len, self._lives.values()))

    def scan(self) -> None:
        """List the hierarchy: names what is new or was cut, ends what is gone although no event said so."""
        started_ns = self._clock_ns()
        found = dict(scan_cgroups(self.hierarchy))
        is_whole = is_whole_hierarchy(self.hierarchy)
        now_ns = self._clock_ns()
        for kernel_id, path in found.items():
            self._found(kernel_id, path, now_ns)
        for life in [lives[-1] for kernel_id, lives in self._lives.items() if kernel_id not in found]:
            if not life.end_ns and (is_whole or life.is_scanned):
                self._end(life, now_ns, is_guessed=True)
        self._incomplete.clear()  # what this scan did not find, no later one will
        self._last_scan_ns = now_ns
        self._scan_pause_ns = max(SCAN_PAUSE_NS, SCAN_SHARE * (now_ns - started_ns))
        self._forget(now_ns)
        self._cpu_shares.clear()

    def observe(self, events: npt.NDArray[np.void]) -> None:
        """Apply life events (`CGROUP_EVENT`, any order) in order of time."""
        for ts_ns, kernel_id, action, raw_path in events[np.argsort(events["ts_ns"], kind="stable")].tolist():
            path = printable(raw_path.decode("utf-8", "surrogateescape"))
            if action == CgroupAction.MADE:
                self._made(kernel_id, path, ts_ns)
            elif action == CgroupAction.REMOVED:
                self._ended(kernel_id, path, ts_ns)
            elif action == CgroupAction.RENAMED:
                self._renamed(kernel_id, path, ts_ns)
            else:
                raise ValueError(f"cgroup event of unknown action {action}")
            if len(raw_path) >= PATH_LIMIT_BYTES and action != CgroupAction.REMOVED:
                self._incomplete.add(kernel_id)
        if self._incomplete:
            self._rescan()
        self._forget(self._clock_ns())
        self._cpu_shares.clear()

    def lives(self, kernel_ids: npt.NDArray[np.uint64], ts_ns: npt.NDArray[np.int64]) -> Lives:
        """Return the life that each (kernel id, Unix time) belongs to.

        A time before the first known life of an id counts as that life: the clocks of CPUs differ. An id that is
        not known starts a scan, at most one every few seconds; one that stays unknown is named "(gone, id N)".
        """
        kernel_ids = np.asarray(kernel_ids, np.uint64)  # mixed with signed ones, numpy would compare them as floats
        self._look_for(np.unique(kernel_ids))
        index = self._indexed()
        is_strange = ~_is_known(index, kernel_ids)
        strangers, stranger_rows = np.unique(kernel_ids[is_strange], return_inverse=True)
        rows = _life_rows(index, kernel_ids, ts_ns)
        rows[is_strange] = len(index.lives) + stranger_rows
        used, compact_rows = np.unique(rows, return_inverse=True)
        lives = [index.lives[row] for row in used[used < len(index.lives)].tolist()]
        lives += [_Life(kernel_id, 0, "", start_ns=0, found_ns=0) for kernel_id in strangers.tolist()]
        unnamed = sum(not life.path for life in lives)
        cgroups = tuple(map(self._cgroup, lives))
        self._cpu_shares.clear()
        return Lives(compact_rows.astype(np.int32), cgroups, unnamed)

    def _found(self, kernel_id: int, path: str, now_ns: int) -> None:
        life = self._latest(kernel_id)
        if life is None:
            life = self._begin(kernel_id, 0, path, start_ns=0, found_ns=now_ns)
        elif life.end_ns:  # it was made again, and that event has not come
            life = self._begin(kernel_id, now_ns, path, start_ns=now_ns, found_ns=now_ns)
        elif life.path != path:
            life.path, life.cpu_share_read_ns = path, 0
        life.is_scanned = True

    def _made(self, kernel_id: int, path: str, ts_ns: int) -> None:
        life = self._latest(kernel_id)
        if life is not None and ts_ns <= (life.end_ns or life.found_ns + _SAME_LIFE_NS):
            life.start_ns = min(life.start_ns or ts_ns, ts_ns)  # a scan, or the event of its end, came first
            life.path = life.path or path
            self._index = None
            return
        if life is not None and not life.end_ns:  # the event of its end was lost
            self._end(life, ts_ns, is_guessed=True)
        is_first = life is None and kernel_id > self._highest_forgotten
        self._begin(kernel_id, 0 if is_first else ts_ns, path, start_ns=ts_ns, found_ns=ts_ns)

    def _ended(self, kernel_id: int, path: str, ts_ns: int) -> None:
        life = self._latest(kernel_id)
        if life is None:  # it came and went before the first scan
            self._end(self._begin(kernel_id, 0, path, start_ns=0, found_ns=ts_ns), ts_ns)
        elif not life.end_ns and life.start_ns <= ts_ns:
            self._end(life, ts_ns)
        elif life.is_end_guessed and life.start_ns <= ts_ns <= life.end_ns:
            life.end_ns, life.is_end_guessed = ts_ns, False

    def _renamed(self, kernel_id: int, path: str, ts_ns: int) -> None:
        life = self._latest(kernel_id)
        if life is None or life.end_ns:
            self._made(kernel_id, path, ts_ns)
            return
        if life.path and path:
            self._move_children(f"{life.path}/", f"{path}/")
        life.path, life.cpu_share_read_ns = path, 0
        if not path:
            self._incomplete.add(kernel_id)

    def _move_children(self, old: str, new: str) -> None:
        for lives in self._lives.values():
            if lives[-1].path.startswith(old) and not lives[-1].end_ns:
                lives[-1].path = new + lives[-1].path.removeprefix(old)
                lives[-1].cpu_share_read_ns = 0

    def _begin(self, kernel_id: int, number: int, path: str, *, start_ns: int, found_ns: int) -> _Life:
        life = _Life(kernel_id, number, path, start_ns, found_ns)
        self._lives.setdefault(kernel_id, []).append(life)
        self._absent.discard(kernel_id)
        self._index = None
        if path:
            self._refresh_cpu_share(life)
        else:
            self._incomplete.add(kernel_id)
        return life

    def _end(self, life: _Life, ts_ns: int, *, is_guessed: bool = False) -> None:
        life.end_ns, life.is_end_guessed = ts_ns, is_guessed
        self._incomplete.discard(life.kernel_id)
        self._removed.append(life)

    def _forget(self, now_ns: int) -> None:
        while self._removed and (len(self._removed) > MAX_REMOVED or self._removed[0].end_ns < now_ns - RETENTION_NS):
            life = self._removed.popleft()
            self._lives[life.kernel_id].remove(life)
            if not self._lives[life.kernel_id]:
                del self._lives[life.kernel_id]
            # Ids grow, so one below this that is made later must have had a life before.
            self._highest_forgotten = max(self._highest_forgotten, life.kernel_id)
            self._index = None

    def _latest(self, kernel_id: int) -> _Life | None:
        lives = self._lives.get(kernel_id)
        return lives[-1] if lives else None

    def _look_for(self, kernel_ids: npt.NDArray[np.uint64]) -> None:
        """Scan if some of these ids have no name and no scan since has looked for them."""
        strangers = set(kernel_ids[~_is_known(self._indexed(), kernel_ids)].tolist()) - self._absent
        if (strangers or not self._incomplete.isdisjoint(kernel_ids.tolist())) and self._rescan():
            if len(self._absent) > _MAX_ABSENT:
                self._absent.clear()
            self._absent |= strangers - self._lives.keys()

    def _rescan(self) -> bool:
        is_due = not 0 <= self._clock_ns() - self._last_scan_ns < self._scan_pause_ns  # or the clock was set back
        if is_due:
            self.scan()
        return is_due

    def _indexed(self) -> _Index:
        if self._index is None:
            lives = [life for lives in self._lives.values() for life in lives]
            kernel_ids = np.fromiter((life.kernel_id for life in lives), np.uint64, len(lives))
            start_ns = np.fromiter((life.start_ns for life in lives), np.int64, len(lives))
            order = np.lexsort((start_ns, kernel_ids))
            self._index = _Index([lives[row] for row in order.tolist()], kernel_ids[order], start_ns[order])
        return self._index

    def _refresh_cpu_share(self, life: _Life) -> None:
        if life.end_ns or not self._rules.needs_cpu_share(life.path):
            return
        now_ns = self._clock_ns()
        if now_ns - life.cpu_share_read_ns >= SHARE_AGE_NS:
            life.cpu_share = read_cpu_share(self.hierarchy, life.path, self._cpu_shares)
            life.cpu_share_read_ns = now_ns

    def _cgroup(self, life: _Life) -> Cgroup:
        if life.path:
            self._refresh_cpu_share(life)
            identity = self._rules.classify(life.path, life.cpu_share)
        else:
            identity = Identity(UNKNOWN_WORKLOAD, "online")
        return Cgroup(
            cg=cgroup_key(self._node_name, self._boot_id, life.kernel_id, life.number),
            kernel_id=life.kernel_id,
            path=life.path or f"(gone, id {life.kernel_id})",
            workload=identity.workload,
            service_class=identity.service_class,
            container_id=identity.container_id,
            pod_uid=identity.pod_uid,
            unit=identity.unit,
            start_ns=life.start_ns,
            end_ns=life.end_ns,
        )


def cgroup_key(node_name: str, boot_id: str, kernel_id: int, number: int) -> int:
    """Return the signed 64-bit key of a life: BLAKE2b over its parts, each after its length in four bytes."""
    parts = (part.encode("utf-8", "surrogateescape") for part in (node_name, boot_id, str(kernel_id), str(number)))
    digest = hashlib.blake2b(b"".join(len(part).to_bytes(4, "little") + part for part in parts), digest_size=8)
    return int.from_bytes(digest.digest(), "little", signed=True)


def _is_known(index: _Index, kernel_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    if not index.lives:
        return np.zeros(len(kernel_ids), np.bool_)
    rows = np.minimum(np.searchsorted(index.kernel_ids, kernel_ids), len(index.lives) - 1)
    is_known: npt.NDArray[np.bool_] = index.kernel_ids[rows] == kernel_ids
    return is_known


def _life_rows(
    index: _Index, kernel_ids: npt.NDArray[np.uint64], ts_ns: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return each sample's row: the last life of its id that began by then. Rows of unknown ids mean nothing."""
    rows = np.searchsorted(index.kernel_ids, kernel_ids).astype(np.int64)
    if not index.lives:
        return rows
    # One more round for each further life of the id with the most of them: one round on almost every host.
    while True:
        following = np.minimum(rows + 1, len(index.lives) - 1)
        is_later = (
            (following > rows) & (index.kernel_ids[following] == kernel_ids) & (index.start_ns[following] <= ts_ns)
        )
        if not is_later.any():
            return rows
        rows += is_later
