"""Small ELF files, kernels and windows, made by hand."""

import struct

import numpy as np
import pytest

from profiler.window import MAPPING, PROCESS, SAMPLE, Node, Stacks, UserEnd, Window
from symbolizer.kernel import KernelSymbols
from symbolizer.symbolizer import Symbolizer

BOOT_ID = "this-boot"
TEXT_ADDRESS, TEXT_OFFSET, TEXT_BYTES = 0x401000, 0x1000, 0x1000
FUNC, NOTYPE, OBJECT, IFUNC = 2, 0, 1, 10
LOCAL, GLOBAL, WEAK = 0, 1, 2
SYMTAB, DYNSYM = 2, 11


def make_elf(symbols, build_id=b"", table=SYMTAB):
    """An ELF64 file with one code segment; `symbols` are (name, address, size, type, binding)."""
    names, rows = b"\0", struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name, value, size, kind, bind in symbols:
        raw = name if isinstance(name, bytes) else name.encode()
        rows += struct.pack("<IBBHQQ", len(names), bind << 4 | kind, 0, 1, value, size)
        names += raw + b"\0"
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id if build_id else b""
    note_at = 64 + 2 * 56
    body = TEXT_OFFSET + TEXT_BYTES
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (0, 1, 6, TEXT_ADDRESS, TEXT_OFFSET, TEXT_BYTES, 0, 0, 1, 0),
        (0, table, 0, 0, body, len(rows), 3, 0, 8, 24),
        (0, 3, 0, 0, body + len(rows), len(names), 0, 0, 1, 0),
    ]
    headers_at = body + len(rows) + len(names)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, headers_at, 0, 64, 56, 2, 64, 4, 0)
    segments = struct.pack("<IIQQQQQQ", 1, 5, TEXT_OFFSET, TEXT_ADDRESS, 0, TEXT_BYTES, TEXT_BYTES, 4096)
    segments += struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    front = (head + segments + note).ljust(body, b"\0")
    return front + rows + names + b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)


def make_window(stacks=(), mappings=(), builds=(), processes=1, boot_id=BOOT_ID):
    """A window; a stack is (kernel addresses, user addresses, process) and may have a `UserEnd`."""
    rows = [(*stack, UserEnd.FRAME_POINTER)[:4] for stack in stacks]
    addresses = [[*kernel, *user] for kernel, user, _, _ in rows]
    return Window(
        start_ns=0,
        end_ns=1,
        node=Node("node", boot_id, 1, "6.1", "", "0", 49, "cpu-clock", "v2"),
        samples=np.zeros(0, SAMPLE),
        stacks=Stacks(
            offsets=np.cumsum([0, *map(len, addresses)]).astype(np.int64),
            addresses=np.array([address for row in addresses for address in row], np.uint64),
            kernel_depth=np.array([len(kernel) for kernel, _, _, _ in rows], np.int32),
            process=np.array([process for _, _, process, _ in rows], np.int32),
            user_end=np.array([end for _, _, _, end in rows], np.uint8),
        ),
        processes=np.zeros(processes, PROCESS),
        mappings=np.array(list(mappings), MAPPING),
        builds=tuple(builds),
        cgroups=(),
    )


KALLSYMS = b"""0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T _stext
ffffffff81000000 t do_one_initcall
ffffffff81000100 W weak_name
ffffffff81000100 T schedule
ffffffff81000400 T _etext
ffffffff82000000 D some_data
ffffffffc0000000 t helper\t[nf_tables]
ffffffffc0000040 t nft_do_chain\t[nf_tables]
ffffffffc0100000 t bpf_prog_6deef7357e7b4530_sampler\t[bpf]
"""


class Machine:
    """Files of a made-up kernel and a clock that stands still until it is set."""

    def __init__(self, root):
        self.root = root
        self.now_ns = 0
        (root / "sys/kernel").mkdir(parents=True)
        (root / "sys/kernel/notes").write_bytes(struct.pack("<III", 4, 4, 3) + b"GNU\0" + b"\xab" * 4)
        (root / "boot_id").write_text(BOOT_ID + "\n")
        self.set_kallsyms(KALLSYMS)

    def set_kallsyms(self, text):
        (self.root / "kallsyms").write_bytes(text)

    def clock_ns(self):
        return self.now_ns

    def kernel(self):
        return KernelSymbols(self.root / "kallsyms", self.root / "sys", self.root / "boot_id", self.clock_ns)

    def symbolizer(self, **limits):
        return Symbolizer(self.kernel(), clock_ns=self.clock_ns, **limits)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class Makers:
    """The makers above, for tests, which cannot import this file."""

    elf = staticmethod(make_elf)
    window = staticmethod(make_window)
    kallsyms = KALLSYMS


@pytest.fixture(scope="session")
def made():
    return Makers
