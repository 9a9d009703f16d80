"""The bounded memory of locations already resolved: sorted keys in numpy, their frames in an Arrow table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from symbolizer.symbolised import FRAMES

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_KEY_BYTES = 3 * 8


class FrameCache:
    """One frame for each key. Beyond its limits it forgets what was not seen for longest."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._windows = 0
        self.clear()

    def __len__(self) -> int:
        return len(self._keys)

    def clear(self) -> None:
        """Forget everything."""
        self._keys = np.empty(0, np.uint64)  # sorted
        self._rows = np.empty(0, np.int64)  # of `_frames`
        self._seen = np.empty(0, np.int64)  # number of the window that had it last
        self._frames = FRAMES.empty_table()

    def missing(self, keys: U64) -> U64:
        """Return those of sorted distinct keys that are not known."""
        if not len(self._keys):
            return keys
        is_missing: npt.NDArray[np.bool_] = self._keys[self._find(keys)] != keys
        return keys[is_missing]

    def add(self, keys: U64, frames: pa.Table) -> None:
        """Remember one frame for each of some sorted keys, none of them known."""
        at = np.searchsorted(self._keys, keys)
        rows = np.arange(self._frames.num_rows, self._frames.num_rows + len(keys))
        self._keys = np.insert(self._keys, at, keys)
        self._rows = np.insert(self._rows, at, rows)
        self._seen = np.insert(self._seen, at, self._windows)
        self._frames = pa.concat_tables([self._frames, frames]).combine_chunks()

    def take(self, keys: U64) -> pa.Table:
        """Return the frames of sorted distinct keys, all known, and mark them as seen."""
        found = self._find(keys)
        self._windows += 1
        self._seen[found] = self._windows
        return self._frames.take(pa.array(self._rows[found]))

    def trim(self) -> None:
        """Where there is too much, forget down to half of the limit, so that it need not be done every window."""
        held_bytes = self._frames.nbytes + _KEY_BYTES * len(self)
        share = min(self._max_entries / max(1, len(self)), self._max_bytes / max(1, held_bytes))
        if share >= 1:
            return
        newest = np.argsort(-self._seen, kind="stable")[: int(len(self) * share / 2)]
        kept = np.sort(newest)
        self._frames = self._frames.take(pa.array(self._rows[kept])).combine_chunks()
        self._keys, self._seen, self._rows = self._keys[kept], self._seen[kept], np.arange(len(kept))

    def _find(self, keys: U64) -> I64:
        return np.minimum(np.searchsorted(self._keys, keys), max(0, len(self._keys) - 1))
