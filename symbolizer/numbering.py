"""Numbers for the builds and kernels that location keys refer to.

A number is never given to something else; what must not be believed any longer gets a new number, so that locations
found under the old one are not met again and age out of their cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiler.window import Build
from symbolizer.builds import Key, build_key
from symbolizer.locations import POSITION_BITS, Place

MAX_NUMBERS = 1 << (64 - POSITION_BITS)


@dataclass
class Source:
    """What a number stands for: a build, or the kernel of a boot."""

    number: int
    build: Build | None = None
    boot_id: str = ""  # of the kernel, or of the machine that a build without a build ID was seen on
    retry_ns: int | None = None  # monotonic time from which its failure is not believed any longer


class Numbering:
    """Number to source and back; `is_full` asks the owner to start again."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Source] = {}
        self._by_number: dict[int, Source] = {}
        self._next = int(Place.FIRST_FREE)

    def __getitem__(self, number: int) -> Source:
        return self._by_number[number]

    def has_room(self, count: int) -> bool:
        """Tell whether that many numbers are left."""
        return self._next + count <= MAX_NUMBERS

    def number_build(self, build: Build, boot_id: str, now_ns: int) -> int:
        """Return the build's number, a new one if it failed and may do better now.

        Without a build ID a build is told apart by its path, which means something on its own machine only.
        """
        key = ("build", *build_key(build), "" if build.build_id else boot_id)
        known = self._by_key.get(key)
        if known is None or (known.retry_ns is not None and known.retry_ns <= now_ns):
            known = self._issue(key)
        known.boot_id = boot_id
        known.build = build  # the newest sources are the likeliest to open
        return known.number

    def number_kernel(self, boot_id: str, generation: int) -> int:
        """Return the number of a boot's kernel in one generation of its symbols."""
        key = ("kernel", boot_id, str(generation))
        known = self._by_key.get(key) or self._issue(key)
        known.boot_id = boot_id
        return known.number

    def _issue(self, key: Key) -> Source:
        if key in self._by_key:
            del self._by_number[self._by_key[key].number]
        source = Source(self._next)
        self._next += 1
        self._by_key[key] = self._by_number[source.number] = source
        return source
