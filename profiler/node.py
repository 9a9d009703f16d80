"""Reads what does not change while the machine is up: its name, boot, CPUs, kernel and CPU model.

Inside a container the host name is the container's (UTS namespace) unless it shares the host's; the configuration's
`agent.node` then names the node. CPUs that go on or off line later are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from profiler.errors import KernelFeatureMissing


@dataclass(frozen=True)
class NodeFacts:
    """The part of `profiler.window.Node` that the machine decides, under the same names."""

    name: str
    boot_id: str
    cpus: int  # online
    kernel: str  # release, such as "6.1.0-18-amd64"
    model: str  # of the CPU; "" where the kernel does not tell


def read_node(name: str = "", *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> NodeFacts:
    """Read the facts; `name` replaces the host name where it is not empty."""
    return NodeFacts(
        name=name or _read_line(proc / "sys/kernel/hostname"),
        boot_id=_read_line(proc / "sys/kernel/random/boot_id"),
        cpus=len(decode_cpu_list(_read_line(sys / "devices/system/cpu/online"))),
        kernel=_read_line(proc / "sys/kernel/osrelease"),
        model=_cpu_model(proc / "cpuinfo", sys / "firmware/devicetree/base/model"),
    )


def decode_cpu_list(text: str) -> tuple[int, ...]:
    """Decode the kernel's list format: "0-2,5" gives 0, 1, 2, 5."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def _cpu_model(cpuinfo: Path, devicetree_model: Path) -> str:
    """Return the model name; arm64 has none there, so the board's name or the part's numbers have to do."""
    fields: dict[str, str] = {}
    for line in _read_text(cpuinfo).splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    for key in ("model name", "cpu model", "cpu"):  # x86, MIPS, POWER
        if fields.get(key):
            return fields[key]
    if devicetree_model.exists():
        return _read_text(devicetree_model).strip("\0\n ")
    if "CPU part" in fields:
        return f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return ""


def _read_line(file: Path) -> str:
    return _read_text(file).strip()


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise KernelFeatureMissing(f"{file} cannot be read: {error.strerror}; mount procfs and sysfs") from error
