"""Windows to files and back: save, load, replay. One compressed numpy archive a window, no pickles.

A saved window resolves to the same symbols later and elsewhere, as far as files with the same build IDs are at hand.
Refuses archives of another format version, damaged ones, and anything that is not one.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler.errors import BadInput, CorruptData, StoreUnavailable
from profiler.window import DELAY, INTERFERENCE, MAPPING, PROCESS, SAMPLE, Build, Cgroup, Node, Stacks, Window

FORMAT_VERSION = 2  # 2: with delays and interference
FILE_SUFFIX = ".window.npz"

_STACK_ARRAYS = ("offsets", "addresses", "kernel_depth", "process", "user_end")
_WINDOW_ARRAYS = {
    "samples": SAMPLE,
    "processes": PROCESS,
    "mappings": MAPPING,
    "delays": DELAY,
    "interference": INTERFERENCE,
}
# What reading bytes that are no window may raise. zipfile calls a flipped flag an unknown compression method, version
# or password (RuntimeError, NotImplementedError).
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def save(window: Window, path: Path) -> None:
    """Write the window to `path` as compressed numpy arrays and a JSON header; replaces the file atomically.

    Raises `StoreUnavailable` when it cannot be written; then nothing of it is left.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "start_ns": window.start_ns,
        "end_ns": window.end_ns,
        "node": asdict(window.node),
        "builds": [asdict(build) for build in window.builds],
        "cgroups": [asdict(cgroup) for cgroup in window.cgroups],
        "counters": window.counters,
    }
    arrays = {name: getattr(window.stacks, name) for name in _STACK_ARRAYS}
    arrays |= {name: getattr(window, name) for name in _WINDOW_ARRAYS}
    partial = path.with_name(f"_{path.name}.tmp")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreUnavailable(
            f"window {path} cannot be written: {error.strerror}; free space or check rights"
        ) from None


def load(path: Path) -> Window:
    """Read a saved window. Raises `CorruptData` for anything that `save` did not write, `BadInput` for no file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"window {path} cannot be read: {error.strerror}") from None
    try:
        arrays = _read_arrays(content)
        return _decode(json.loads(arrays["header"].tobytes()), arrays)
    except _DAMAGE as error:
        raise CorruptData(f"window {path} is damaged ({type(error).__name__}); remove the file") from None


def replay(paths: Iterable[Path]) -> Iterator[Window]:
    """Yield saved windows in the order of their start, as the sampler would have; directories are searched."""
    files = [file for path in paths for file in (sorted(path.glob(f"*{FILE_SUFFIX}")) if path.is_dir() else [path])]
    if not files:
        raise BadInput(f"no saved windows (*{FILE_SUFFIX}) in {', '.join(map(str, paths))}")
    # Files are named by their start; those given one by one are taken in the order given.
    yield from map(load, files)


def _read_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """All arrays by name. Members are read whole: only at the end of one is its checksum compared."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {
            name.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in archive.namelist()
        }


def _decode(header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Window:
    if header["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format {header['format_version']}")
    for name, dtype in _WINDOW_ARRAYS.items():
        if arrays[name].dtype != dtype:
            raise ValueError(name)
    builds = tuple(Build(**{**build, "sources": tuple(build["sources"])}) for build in header["builds"])
    return Window(
        start_ns=header["start_ns"],
        end_ns=header["end_ns"],
        node=Node(**header["node"]),
        stacks=Stacks(**{name: arrays[name] for name in _STACK_ARRAYS}),
        builds=builds,
        cgroups=tuple(Cgroup(**cgroup) for cgroup in header["cgroups"]),
        counters=header["counters"],
        **{name: arrays[name] for name in _WINDOW_ARRAYS},
    )
