"""Raw bytes of symbol tables, paths and notes to text that is safe to store and show.

Names come from files of other people's containers. Control characters, surrogates and the marks that turn the
direction of writing become U+FFFD, invalid UTF-8 too; line feeds and `;` are data and stay. Demangling is done in
pure Python with bounds on depth and output: the native demanglers tried could be made to hang or abort the process
by a name of a few hundred bytes, because a spelling may be exponentially longer than its mangled name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import demangle

MAX_NAME_BYTES = 4096  # a longer mangled name is cut and stays mangled; the longest met in libLLVM is under 2 KiB
MAX_TABLE_CHARS = 1 << 20  # of names that one file may contribute to one window
CUT_CHARS = 200  # what is left of a name beyond that: enough to tell functions apart

_BOUNDS = demangle.Limits(max_depth=128, max_output=4096, max_input=MAX_NAME_BYTES, max_substitutions=1024)
_HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Replace every character that could harm a terminal, a page or a column of text."""
    return _HARMFUL.sub("\ufffd", text)


def decode_name(raw: bytes) -> str:
    """Turn a symbol's bytes into its system name: without `@VERSION`, cut at `MAX_NAME_BYTES`."""
    text = raw[:MAX_NAME_BYTES].decode("utf-8", "replace")
    bare = text.partition("@")[0] or text  # a name may start with "@": then it is all there is
    return clean_text(bare)


def demangle_name(system_name: str) -> str:
    """Return the readable form of a C++ or Rust name, or the name itself."""
    if not system_name.startswith(("_Z", "_R")) or len(system_name) >= MAX_NAME_BYTES:
        return system_name
    return clean_text(demangle.demangle(system_name, language=("itanium", "rust"), style="gnu", limits=_BOUNDS))


def readable_names(raws: Iterable[bytes]) -> tuple[list[str], list[str]]:
    """Return functions and system names; what is beyond `MAX_TABLE_CHARS` in sum is cut short and stays mangled."""
    functions: list[str] = []
    system_names: list[str] = []
    chars = 0
    for raw in raws:
        system_name = decode_name(raw)
        function = demangle_name(system_name) if chars <= MAX_TABLE_CHARS else system_name
        chars += len(function) + len(system_name)
        if chars > MAX_TABLE_CHARS and len(system_name) > CUT_CHARS:
            function = system_name = system_name[:CUT_CHARS] + "…"
        functions.append(function)
        system_names.append(system_name)
    demangle.cache_clear()  # names are kept with their locations; the library's own cache would keep them twice
    return functions, system_names
