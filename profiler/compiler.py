"""C to file descriptors, in a process of its own: compile and load BPF with BCC, hand the descriptors over, exit.

BCC links all of clang; a process that has compiled once keeps 115 MB resident. So the agent never imports bcc:
`profiler.loader` runs this module as a child, which reads one request (JSON) from the socket on descriptor 0, answers
with one message of names and, beside it, the descriptors of maps and programs, and exits. The agent then holds
descriptors and memory maps only.

Messages of clang and of the verifier go to standard error, which the loader reads.
"""

from __future__ import annotations

import json
import os
import socket
import sys

# BCC asks the environment where the kernel's headers are, when it compiles; the loader has set it.
from bcc import BPF

PROGRAM_TYPES = {"perf_event": BPF.PERF_EVENT, "raw_tracepoint": BPF.RAW_TRACEPOINT}
DESCRIPTORS_A_MESSAGE = 64  # the kernel's limit is 253


def main() -> None:
    """Serve one request: `{source, flags, maps: [name], programs: {name: type}}`."""
    with socket.socket(fileno=os.dup(0)) as channel:
        request = json.loads(channel.recv(1 << 20))
        module = BPF(src_file=request["source"].encode(), cflags=request["flags"])
        descriptors = {name: module.get_table(name.encode()).map_fd for name in request["maps"]}
        for name, program_type in request["programs"].items():
            descriptors[name] = module.load_func(name.encode(), PROGRAM_TYPES[program_type]).fd
        if len(descriptors) > DESCRIPTORS_A_MESSAGE:
            sys.exit(f"{len(descriptors)} maps and programs; one message carries {DESCRIPTORS_A_MESSAGE}")
        socket.send_fds(channel, [json.dumps(list(descriptors)).encode()], list(descriptors.values()))
    os._exit(0)  # tearing clang down takes 30 ms and frees nothing that exit does not


if __name__ == "__main__":
    main()
