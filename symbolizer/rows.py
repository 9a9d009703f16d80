"""What was found for the locations of one source to rows of `FRAMES`, and the identity that each frame gets."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from profiler.window import Build, UserEnd
from symbolizer.builds import Names
from symbolizer.kernel import LOW_48_BITS, KernelPlace
from symbolizer.locations import Place
from symbolizer.names import clean_text
from symbolizer.symbolised import FRAMES

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Column = Sequence[str] | Sequence[int] | str | int

_SYNTHETIC = {
    int(UserEnd.TRUNCATED): ("[truncated]", "the frame limit was reached"),
    int(UserEnd.FAILED): ("[user stack unreadable]", "the kernel could not read the user stack"),
    int(UserEnd.LOST): ("[stack lost]", "the sample was kept without any address of its stack"),
}
_OUTSIDE = {
    Place.UNMAPPED: ("[unmapped]", "outside any mapping"),
    Place.PROCESS_GONE: ("[process gone]", "process gone before its mappings were read"),
}


# Such an address says nothing: another process, or the same one later, has other code there.
PLACELESS_MODULES = frozenset({"[unmapped]", "[process gone]"})


def hash_parts(*parts: bytes) -> int:
    """Return a signed 64-bit hash of length-prefixed parts; the same on every node, in every run."""
    return _signed_hash(_prefixed(*parts))


def _prefixed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _signed_hash(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little", signed=True)


def hash_stacks(frame_ids: I64, offsets: I64) -> I64:
    """Return the id of each stack: a hash of its frame ids, one call a stack."""
    raw = memoryview(np.ascontiguousarray(frame_ids, "<i8").tobytes())
    ends = (offsets * 8).tolist()
    digests = [blake2b(raw[a:b], digest_size=8).digest() for a, b in pairwise(ends)]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def synthetic_rows(positions: U64) -> pa.Table:
    """Return the frames that stand for what is missing from stacks; positions are of `UserEnd`."""
    found = [_SYNTHETIC[position] for position in positions.tolist()]
    names = [name for name, _ in found]
    ids = [hash_parts(b"synthetic", name.encode()) for name in names]
    columns: dict[str, Column] = {"function": names, "state": [state for _, state in found]}
    return _table(ids, columns | {"kind": "synthetic"})


def outside_rows(place: Place, addresses: U64) -> pa.Table:
    """Return the frames of user addresses that belong to no mapping."""
    module, state = _OUTSIDE[place]
    return _user_table(module.encode(), addresses, {"module": module, "state": state})


def user_rows(build: Build, file_offsets: U64, names: Names) -> pa.Table:
    """Return the frames of a file; one without a build ID is told apart by its path and size."""
    by_path = build.path.encode("utf-8", "surrogateescape") + b"\0%d" % build.size_bytes
    identity = b"id " + build.build_id.encode() if build.build_id else b"path " + by_path
    columns: dict[str, Column] = {
        "build_id": build.build_id,
        "module": clean_text(PurePosixPath(build.path).name or build.path) or "[anon]",
        "function": names.functions,
        "system_name": names.system_names,
        "state": names.states,
    }
    return _user_table(identity, file_offsets, columns)


def _user_table(identity: bytes, positions: U64, columns: dict[str, Column]) -> pa.Table:
    shared = _prefixed(b"user", identity)  # joined once for all addresses of a file: twice as fast
    ids = [_signed_hash(shared + _prefixed(position.to_bytes(8, "little"))) for position in positions.tolist()]
    return _table(ids, columns | {"kind": "user", "rel_addr": positions.tolist()})


def kernel_rows(places: Sequence[KernelPlace]) -> pa.Table:
    """Return the frames of kernel addresses."""
    ids = [_kernel_id(place) for place in places]
    functions = [place.function for place in places]
    columns: dict[str, Column] = {
        "build_id": [place.build_id for place in places],
        "rel_addr": [place.position for place in places],
        "kind": "kernel",
        "module": [place.module for place in places],
        "function": functions,
        "system_name": functions,
        "state": [place.state for place in places],
    }
    return _table(ids, columns)


def foreign_kernel_places(boot_id: str, addresses: U64) -> list[KernelPlace]:
    """Return places without names for the kernel of another boot, whose symbols are not here."""
    state = "kernel of another boot: its symbols are not here"
    origin = f"boot {boot_id}"
    return [KernelPlace("kernel", "", origin, address & LOW_48_BITS, "", state) for address in addresses.tolist()]


def _kernel_id(place: KernelPlace) -> int:
    parts = (place.build_id.encode(), place.origin.encode(), place.position.to_bytes(8, "little"))
    return hash_parts(b"kernel", *parts)


def _table(frame_ids: list[int], columns: dict[str, Column]) -> pa.Table:
    """Make rows of `FRAMES`; a single value fills its column, an absent one is "" or 0."""
    columns = columns | {"frame_id": frame_ids}
    arrays = []
    for schema in FRAMES:
        value = columns.get(schema.name, "" if pa.types.is_string(schema.type) else 0)
        values = [value] * len(frame_ids) if isinstance(value, str | int) else value
        arrays.append(pa.array(values, schema.type))
    return pa.Table.from_arrays(arrays, schema=FRAMES)
