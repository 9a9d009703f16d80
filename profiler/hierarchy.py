"""Finds the cgroup hierarchy that tells the work of this host apart, and lists it.

A v1 host has one hierarchy for each controller, and a cgroup may exist in one of them only. CPU time is shared out by
the `cpu` controller, so its hierarchy gives the identity: the v1 one where `cpu` is mounted as v1 (mode "v1", or
"hybrid" with a cgroup2 mount beside it, whose cgroups then say nothing about CPUs), else cgroup2 (mode "v2").

The kernel id of a cgroup is the inode number of its directory, 64 bits since Linux 5.5 (40430452fd5d "kernfs: use
64bit inos if ino_t is 64bit"), and not given out again while the hierarchy is mounted.

Limits: only what this process sees is listed. Below a bind mount or in a cgroup namespace that is a part of the
hierarchy; `describe_limits` says so in words.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import BadInput, KernelFeatureMissing, NoPermission
from profiler.workloads import CpuShare

MODES = ("auto", "v1", "hybrid", "v2")

_ROOT_KERNEL_ID = 1  # kernfs numbers the nodes of every hierarchy from 1, its root
_LEAST_SHARES = 2  # v1 cpu.shares; Kubernetes gives it to best-effort pods
_LEAST_WEIGHT = 1  # v2 cpu.weight
_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")  # of space, tab, newline and backslash in mountinfo
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy. `root` is the path, inside the hierarchy, of the cgroup that is seen at `mount_point`."""

    mode: str  # "v1", "hybrid" or "v2"
    mount_point: Path
    hierarchy_id: int  # as in /proc/cgroups; 0 for cgroup2
    root: str = "/"

    @property
    def prefix(self) -> str:
        """What to put before a path below the mount point: "" for the whole hierarchy.

        A root such as "/../.." lies above this process's cgroup namespace: it is the host's own, or its name is hidden.
        """
        return "" if self.root == "/" or self.root.startswith("/..") else self.root


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo, reduced to what tells hierarchies apart."""

    root: str
    mount_point: Path
    filesystem: str
    options: frozenset[str]  # of the superblock: the controllers of a v1 hierarchy are among them


def detect_hierarchy(mode: str = "auto", *, proc: Path = Path("/proc")) -> Hierarchy:
    """Return the hierarchy that identifies cgroups here, or the one that `mode` asks for.

    `BadInput` for an unknown mode; `KernelFeatureMissing` where the hierarchy is not mounted.
    """
    if mode not in MODES:
        raise BadInput(f"cgroup mode {mode!r} is none of {', '.join(MODES)}")
    mounts = read_mounts(proc / "self/mountinfo")
    cpu_id = read_hierarchy_id("cpu", proc / "cgroups")
    unified = _best([mount for mount in mounts if mount.filesystem == "cgroup2"])
    if mode == "v2" or (mode == "auto" and cpu_id == 0):
        return _unified_hierarchy(unified)
    cpu = _best([mount for mount in mounts if mount.filesystem == "cgroup" and "cpu" in mount.options])
    if cpu is None or cpu_id == 0:
        raise KernelFeatureMissing(
            "no v1 hierarchy of the cpu controller is mounted; mount -t cgroup -o cpu cgroup /sys/fs/cgroup/cpu, "
            "or set the cgroup mode to v2"
        )
    detected = "v1" if unified is None else "hybrid"
    return Hierarchy(detected if mode == "auto" else mode, cpu.mount_point, cpu_id, cpu.root)


def describe_limits(hierarchy: Hierarchy) -> str:
    """Return what of the hierarchy this process cannot see, in one sentence; "" where it sees all of it."""
    try:
        is_whole = hierarchy.mount_point.stat().st_ino == _ROOT_KERNEL_ID
    except OSError as error:
        return f"{hierarchy.mount_point} cannot be read ({error.strerror}): cgroups have no names"
    if is_whole:
        return ""
    if hierarchy.prefix:
        return f"only {hierarchy.prefix} of the hierarchy is mounted at {hierarchy.mount_point}: others have no names"
    return (
        f"a cgroup namespace hides all cgroups outside its own part, and paths at {hierarchy.mount_point} are relative "
        "to it: run in the host's cgroup namespace to see names of all"
    )


def read_mounts(mountinfo: Path) -> list[Mount]:
    """Read the mounts of cgroup file systems, in the order of mounting."""
    try:
        lines = mountinfo.read_text(**_TEXT).splitlines()
    except OSError as error:
        raise KernelFeatureMissing(f"{mountinfo} cannot be read: {error.strerror}; mount procfs") from error
    mounts = (_decode_mount(line) for line in lines)
    return [mount for mount in mounts if mount is not None and mount.filesystem in ("cgroup", "cgroup2")]


def read_hierarchy_id(controller: str, cgroups: Path) -> int:
    """Return the id of the v1 hierarchy of `controller`; 0 if cgroup2 has it or the kernel lacks it or has no v1."""
    try:
        lines = cgroups.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:  # a kernel without cgroup v1
        return 0
    except OSError as error:
        raise KernelFeatureMissing(f"{cgroups} cannot be read: {error.strerror}; mount procfs") from error
    rows = (line.split() for line in lines)
    return next((int(row[1]) for row in rows if len(row) > 1 and row[0] == controller), 0)


def scan_cgroups(hierarchy: Hierarchy) -> Iterator[tuple[int, str]]:
    """Yield (kernel id, path inside the hierarchy) of every cgroup, parents before children.

    Cgroups that go while the scan runs are left out. `NoPermission` if a directory may not be listed.
    """
    top = str(hierarchy.mount_point)
    pending = [(top, hierarchy.prefix)]
    yield _stat_root(hierarchy).st_ino, hierarchy.prefix or "/"
    while pending:
        directory, path = pending.pop()
        for name, status in _list_cgroups(directory):
            child = f"{path}/{name}"
            yield status.st_ino, printable(child)
            if status.st_nlink != 2:  # kernfs counts 2 + children, so most cgroups need not be opened
                pending.append((f"{directory}/{name}", child))


def read_cpu_share(hierarchy: Hierarchy, path: str, known: dict[str, CpuShare] | None = None) -> CpuShare:
    """Read how the cgroup at `path` competes for CPUs: it and all above it. Files that are absent count as defaults.

    `known` holds what was read for other paths and is added to: neighbours share most of what is above them.
    """
    share, parent = CpuShare(), hierarchy.prefix
    if not path.startswith(f"{parent}/") or "/../" in f"{path}/":
        return share
    known = {} if known is None else known
    for name in filter(None, path.removeprefix(parent).split("/")):
        parent = f"{parent}/{name}"
        if parent not in known:
            known[parent] = _read_own_share(hierarchy, parent, share)
        share = known[parent]
    return share


def is_whole_hierarchy(hierarchy: Hierarchy) -> bool:
    """Tell whether the mount shows the hierarchy from its root, so that what a scan does not find does not exist."""
    return _stat_root(hierarchy).st_ino == _ROOT_KERNEL_ID


def printable(path: str) -> str:
    r"""Return `path` with bytes that are no text, control and invisible characters written as `\xNN` or `\uNNNN`."""
    if path.isprintable():
        return path
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in path)


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # how Python carries a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def _unified_hierarchy(unified: Mount | None) -> Hierarchy:
    if unified is None:
        raise KernelFeatureMissing("no cgroup2 file system is mounted; mount -t cgroup2 cgroup2 /sys/fs/cgroup")
    return Hierarchy("v2", unified.mount_point, 0, unified.root)


def _best(mounts: list[Mount]) -> Mount | None:
    """Return the mount that shows most: from above our namespace, from its root, a part; then the shortest path."""
    return min(
        mounts,
        key=lambda mount: (not mount.root.startswith("/.."), mount.root != "/", len(str(mount.mount_point))),
        default=None,
    )


def _decode_mount(line: str) -> Mount | None:
    """Decode one line: `id parent major:minor root mount_point options [tags...] - type source super_options`."""
    mount_part, separator, filesystem_part = line.partition(" - ")
    fields, filesystem = mount_part.split(" "), filesystem_part.split(" ")
    if not separator or len(fields) < 6 or len(filesystem) < 3:
        return None
    return Mount(_unescape(fields[3]), Path(_unescape(fields[4])), filesystem[0], frozenset(filesystem[2].split(",")))


def _unescape(field: str) -> str:
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)


def _stat_root(hierarchy: Hierarchy) -> os.stat_result:
    try:
        return hierarchy.mount_point.stat()
    except OSError as error:
        raise KernelFeatureMissing(
            f"cgroup hierarchy {hierarchy.mount_point} cannot be read: {error.strerror}; is it still mounted?"
        ) from error


def _list_cgroups(directory: str) -> list[tuple[str, os.stat_result]]:
    try:
        with os.scandir(directory) as entries:
            statuses = [(entry.name, _stat(entry)) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except PermissionError as error:
        raise NoPermission(f"cgroup {directory} cannot be listed: {error.strerror}; run as root") from error
    except OSError as error:
        # Removed since its parent was listed; or nested deeper than a path may be long, which any owner of a subtree
        # can do: those cgroups stay unnamed and are counted when they are sampled.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENAMETOOLONG):
            return []
        raise
    return [(name, status) for name, status in statuses if status is not None]


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENAMETOOLONG):
            return None
        raise


def _read_own_share(hierarchy: Hierarchy, path: str, above: CpuShare) -> CpuShare:
    directory = f"{hierarchy.mount_point}{path.removeprefix(hierarchy.prefix)}"
    file, least = ("cpu.weight", _LEAST_WEIGHT) if hierarchy.mode == "v2" else ("cpu.shares", _LEAST_SHARES)
    is_idle = above.is_idle or _read_number(f"{directory}/cpu.idle", 0) == 1
    return CpuShare(is_idle, above.is_least_weight or _read_number(f"{directory}/{file}", least + 1) <= least)


def _read_number(file: str, default: int) -> int:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # a third of the time of `Path.read_bytes`
    except OSError:  # removed meanwhile, or a controller or kernel without this file
        return default
    try:
        return int(os.read(descriptor, 32))
    except (OSError, ValueError):  # removed after it was opened
        return default
    finally:
        os.close(descriptor)
