"""The running kernel's type information (BTF): probe members, and write a C header with the kernel's own layouts.

BCC normally compiles against kernel headers that most machines do not have. A small generated tree takes their
place: a header dumped from `/sys/kernel/btf/vmlinux` by libbpf, the few macros that BCC's own `helpers.h` expects,
and empty files for the headers it includes. Every struct offset is then that of the kernel it runs on, and nothing
is ever compared by kernel version: what may differ is asked of BTF.

Kernel limits: needs `CONFIG_DEBUG_INFO_BTF`. Only types by name pattern are dumped (about 19,000 of 135,000 lines),
which makes compiling three times faster than dumping all.
"""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Iterator
from pathlib import Path

from profiler.errors import KernelFeatureMissing

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_INT, _STRUCT, _UNION, _ENUM, _TYPEDEF, _ENUM64 = 1, 4, 5, 6, 8, 19
# Types that our programs read; what they embed by value follows by itself.
_WANTED = {"task_struct", "cgroup", "cgroup_root", "cgroup_subsys_id", "kernfs_node", "css_set", "pt_regs"}
# What BCC's helpers.h takes by value or names in prototypes.
_WANTED_PREFIXES = ("bpf_", "btf_ptr", "__sk_buff", "xdp_", "sk_msg_md")

# What our programs read. Their offsets go into the tree as macros, for the C to assert what the dump gave: libbpf 1.1
# pads some cacheline-aligned structs wrongly (cfs_rq.rq of 6.18 comes out at 328, and is at 312).
READ_MEMBERS = {
    "task_struct": ("cgroups", "group_leader", "start_boottime", "self_exec_id", "throttled"),
    "cfs_rq": ("rq", "throttled_clock_self", "throttled_clock_self_time"),
    "rq": ("clock", "prev_steal_time_rq"),
    "css_set": ("subsys", "dfl_cgrp"),
    "cgroup_subsys_state": ("cgroup",),
    "cgroup": ("kn", "root"),
    "cgroup_root": ("hierarchy_id",),
    "kernfs_node": ("id",),
}

_KCONFIG_H = """\
#pragma once
#define __LINUX_BPF_H__
#define _UAPI__LINUX_BPF_H__
#define CONFIG_BPF_SYSCALL 1
#define PAGE_SIZE {page_size}
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 5, 0) /* BCC wants a number; ours never compare it */
#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzl((n) - 1)))
#include "vmlinux_btf.h"
"""
_EMPTY_HEADERS = (
    "asm/page.h",
    "linux/bpf_common.h",
    "linux/log2.h",
    "linux/types.h",
    "linux/version.h",
    "uapi/linux/bpf.h",
    "uapi/linux/if_ether.h",
    "uapi/linux/if_packet.h",
    "uapi/linux/ptrace.h",
)
# BCC passes -I for these and clang warns when they are absent.
_EMPTY_DIRECTORIES = ("include/generated/uapi", "arch/x86/include", "arch/arm64/include")


class _Type(ct.Structure):
    """`struct btf_type` of the kernel's uapi: name, kind and member count, size or referred type."""

    _fields_ = (("name_off", ct.c_uint32), ("info", ct.c_uint32), ("size_or_type", ct.c_uint32))

    @property
    def kind(self) -> int:
        return (int(self.info) >> 24) & 31

    @property
    def member_count(self) -> int:
        return int(self.info) & 0xFFFF

    @property
    def has_bit_fields(self) -> bool:
        return bool(int(self.info) >> 31)


class _Member(ct.Structure):
    _fields_ = (("name_off", ct.c_uint32), ("type", ct.c_uint32), ("offset", ct.c_uint32))


def _bind_libbpf() -> ct.CDLL:
    try:
        lib = ct.CDLL("libbpf.so.1")
    except OSError as error:
        raise KernelFeatureMissing(f"libbpf.so.1 cannot be loaded ({error}); install python3-bpfcc") from None
    pointer = ct.c_void_p
    lib.libbpf_set_print.restype, lib.libbpf_set_print.argtypes = pointer, [pointer]
    lib.libbpf_set_print(None)  # it would say on standard error, in a line of its own, what our errors say
    lib.btf__parse.restype, lib.btf__parse.argtypes = pointer, [ct.c_char_p, pointer]
    lib.btf__free.argtypes, lib.btf__free.restype = [pointer], None
    lib.btf__type_cnt.argtypes = [pointer]
    lib.btf__type_by_id.restype, lib.btf__type_by_id.argtypes = ct.POINTER(_Type), [pointer, ct.c_uint32]
    lib.btf__name_by_offset.restype, lib.btf__name_by_offset.argtypes = ct.c_char_p, [pointer, ct.c_uint32]
    lib.btf__find_by_name_kind.argtypes = [pointer, ct.c_char_p, ct.c_uint32]
    lib.btf_dump__new.restype, lib.btf_dump__new.argtypes = pointer, [pointer] * 4
    lib.btf_dump__dump_type.argtypes = [pointer, ct.c_uint32]
    lib.btf_dump__free.argtypes, lib.btf_dump__free.restype = [pointer], None
    return lib


class Btf:
    """Type information of one kernel. Close it, or use it as a context manager."""

    def __init__(self, path: Path = VMLINUX) -> None:
        if not path.exists():
            raise KernelFeatureMissing(f"no BTF at {path}; boot a kernel built with CONFIG_DEBUG_INFO_BTF=y")
        self._lib = _bind_libbpf()
        self._btf = self._lib.btf__parse(os.fsencode(path), None)
        if not self._btf:
            raise KernelFeatureMissing(f"BTF at {path} cannot be parsed by this libbpf; upgrade libbpf1")

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.btf__free(self._btf)

    def has_member(self, struct: str, member: str) -> bool:
        """Tell whether the kernel's `struct` has `member`, also inside its anonymous structs and unions."""
        return self.member_offset(struct, member) is not None

    def member_offset(self, struct: str, member: str) -> int | None:
        """Return the offset of `member` in the kernel's `struct`, in bytes; None where there is no such member."""
        type_id: int = self._lib.btf__find_by_name_kind(self._btf, struct.encode(), _STRUCT)
        offset_bits = self._offset_bits(type_id, member.encode()) if type_id > 0 else None
        return None if offset_bits is None else offset_bits // 8

    def _offset_bits(self, type_id: int, member: bytes) -> int | None:
        pointer = self._lib.btf__type_by_id(self._btf, type_id)
        first = ct.addressof(pointer.contents) + ct.sizeof(_Type)
        for entry in (_Member * pointer.contents.member_count).from_address(first):
            # With the kind flag the upper eight bits are the size of a bit field.
            offset_bits = int(entry.offset) & 0xFFFFFF if pointer.contents.has_bit_fields else int(entry.offset)
            name = self._lib.btf__name_by_offset(self._btf, entry.name_off)
            if name == member:
                return offset_bits
            if not name and self._type(entry.type).kind in (_STRUCT, _UNION):
                nested_bits = self._offset_bits(entry.type, member)
                if nested_bits is not None:
                    return offset_bits + nested_bits
        return None

    def write_tree(self, root: Path) -> None:
        """Write the tree that `BCC_KERNEL_SOURCE` may name: 0.2 s, 370 kB."""
        for name in _EMPTY_HEADERS:
            header = root / "include" / name
            header.parent.mkdir(parents=True, exist_ok=True)
            header.touch()
        for name in _EMPTY_DIRECTORIES:
            (root / name).mkdir(parents=True, exist_ok=True)
        kconfig = _KCONFIG_H.format(page_size=os.sysconf("SC_PAGESIZE"))
        (root / "include/linux/kconfig.h").write_text(kconfig)
        (root / "include/offsets.h").write_text("".join(self._offset_macros()))
        self._dump(root / "include/vmlinux_btf.h")

    def _offset_macros(self) -> Iterator[str]:
        for struct, members in READ_MEMBERS.items():
            for member in members:
                offset = self.member_offset(struct, member)
                if offset is not None:
                    yield f"#define COPROF_OFFSET_{struct}_{member} {offset}\n"

    def _dump(self, header: Path) -> None:
        # libbpf prints through a callback of exactly vfprintf's signature, so C prints straight into the file.
        libc = ct.CDLL(None, use_errno=True)
        libc.fopen.restype, libc.fopen.argtypes = ct.c_void_p, [ct.c_char_p, ct.c_char_p]
        libc.fclose.argtypes = [ct.c_void_p]
        stream = libc.fopen(os.fsencode(header), b"w")
        if not stream:
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()), str(header))
        dump = self._lib.btf_dump__new(self._btf, ct.cast(libc.vfprintf, ct.c_void_p), stream, None)
        try:
            for type_id in self._wanted_types():
                self._lib.btf_dump__dump_type(dump, type_id)
        finally:
            self._lib.btf_dump__free(dump)
            if libc.fclose(stream):
                raise OSError(ct.get_errno(), os.strerror(ct.get_errno()), str(header))

    def _wanted_types(self) -> Iterator[int]:
        for type_id in range(1, self._lib.btf__type_cnt(self._btf)):
            entry = self._type(type_id)
            kind = entry.kind
            is_anonymous_enum = kind in (_ENUM, _ENUM64) and not entry.name_off
            if is_anonymous_enum or self._is_integer_typedef(type_id):
                yield type_id
            elif kind in (_STRUCT, _UNION, _ENUM, _TYPEDEF, _ENUM64):
                name = self._lib.btf__name_by_offset(self._btf, entry.name_off).decode(errors="replace")
                if name in _WANTED or name.startswith(_WANTED_PREFIXES):
                    yield type_id

    def _is_integer_typedef(self, type_id: int) -> bool:
        target = type_id
        while target and self._type(target).kind == _TYPEDEF:
            target = self._type(target).size_or_type
        return target not in (0, type_id) and self._type(target).kind == _INT

    def _type(self, type_id: int) -> _Type:
        entry: _Type = self._lib.btf__type_by_id(self._btf, type_id).contents
        return entry
