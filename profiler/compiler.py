"""C to file descriptors, in a process of its own: compile and load BPF with BCC, hand the descriptors over, exit.

BCC links all of clang; a process that has compiled once keeps 115 MB resident. So the agent never imports bcc:
`profiler.loader` runs this module as a child, which reads one request (JSON) from the socket on descriptor 0, answers
with one message of names and, beside it, the descriptors of maps and programs, and exits. The agent then holds
descriptors and memory maps only.

Messages of clang and of the verifier go to standard error, which the loader reads.
"""

from __future__ import annotations

import ctypes as ct
import json
import os
import socket
import sys

# BCC asks the environment where the kernel's headers are, when it compiles; the loader has set it.
from bcc import BPF, lib

PROGRAM_TYPES = {"perf_event": BPF.PERF_EVENT, "raw_tracepoint": BPF.RAW_TRACEPOINT}
TYPED_TRACEPOINT = "tp_btf:"  # then the tracepoint's name: its arguments are typed, so members are read without helpers
_BPF_TRACE_RAW_TP, _PROGRAM_TRACING, _BTF_KIND_TYPEDEF = 23, 26, 8
DESCRIPTORS_A_MESSAGE = 64  # the kernel's limit is 253


class _LoadOptions(ct.Structure):
    """`struct bpf_prog_load_opts` of libbpf 1.0; later versions add to its end and tell by its size."""

    _fields_ = (
        ("size", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_int),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_text", ct.c_char_p),
    )


def main() -> None:
    """Serve one request: `{source, flags, maps: [name], programs: {name: type}}`."""
    with socket.socket(fileno=os.dup(0)) as channel:
        request = json.loads(channel.recv(1 << 20))
        module = BPF(src_file=request["source"].encode(), cflags=request["flags"])
        descriptors = {name: lib.bpf_table_fd(module.module, name.encode()) for name in request["maps"]}
        for name, program_type in request["programs"].items():
            if program_type.startswith(TYPED_TRACEPOINT):
                tracepoint = program_type.removeprefix(TYPED_TRACEPOINT)
                descriptors[name] = load_typed_tracepoint(name, tracepoint, module.dump_func(name.encode()))
            else:
                descriptors[name] = module.load_func(name.encode(), PROGRAM_TYPES[program_type]).fd
        if len(descriptors) > DESCRIPTORS_A_MESSAGE:
            sys.exit(f"{len(descriptors)} maps and programs; one message carries {DESCRIPTORS_A_MESSAGE}")
        socket.send_fds(channel, [json.dumps(list(descriptors)).encode()], list(descriptors.values()))
    os._exit(0)  # tearing clang down takes 30 ms and frees nothing that exit does not


def load_typed_tracepoint(name: str, tracepoint: str, instructions: bytes) -> int:
    """Load a program whose arguments the verifier knows by type, which this BCC cannot do; returns its descriptor.

    Prints what the verifier says and exits when it refuses.
    """
    libbpf = ct.CDLL("libbpf.so.1", use_errno=True)
    libbpf.btf__load_vmlinux_btf.restype = ct.c_void_p
    libbpf.btf__find_by_name_kind.argtypes = [ct.c_void_p, ct.c_char_p, ct.c_uint32]
    btf = libbpf.btf__load_vmlinux_btf()
    btf_id = libbpf.btf__find_by_name_kind(btf, f"btf_trace_{tracepoint}".encode(), _BTF_KIND_TYPEDEF)
    if btf_id < 0:
        sys.exit(f"this kernel has no tracepoint {tracepoint}")
    log = ct.create_string_buffer(1 << 20)
    options = _LoadOptions(size=ct.sizeof(_LoadOptions), expected_attach_type=_BPF_TRACE_RAW_TP, attach_btf_id=btf_id)
    count = len(instructions) // 8
    fd: int = libbpf.bpf_prog_load(_PROGRAM_TRACING, name.encode(), b"GPL", instructions, count, ct.byref(options))
    if fd < 0:  # again, for the reason: logging costs a second of memory traffic that a good program need not pay
        options.log_level, options.log_size, options.log_text = 1, len(log), ct.cast(log, ct.c_char_p)
        libbpf.bpf_prog_load(_PROGRAM_TRACING, name.encode(), b"GPL", instructions, count, ct.byref(options))
        sys.exit(log.value.decode(errors="replace"))
    return fd


if __name__ == "__main__":
    main()
