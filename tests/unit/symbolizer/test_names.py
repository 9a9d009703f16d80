"""Names made readable and harmless."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.names import MAX_TABLE_CHARS, clean_text, decode_name, demangle_name, readable_names


@pytest.mark.parametrize(
    ("mangled", "readable"),
    [
        ("_ZN4Shop5priceERKNS_4ItemEi", "Shop::price(Shop::Item const&, int)"),
        ("_ZN3foo3barEv.cold", "foo::bar() [clone .cold]"),
        ("_ZN5hello4main17h0123456789abcdefE", "hello::main"),
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_RNvMsr_NtCs3ssYzQotkvD_3std4pathNtB5_7PathBuf3newCs15kBYyAo9fc_7mycrate", "<std::path::PathBuf>::new"),
        ("main.(*Server).Serve", "main.(*Server).Serve"),
        ("_ZN3foo", "_ZN3foo"),
        ("_Random_c_name", "_Random_c_name"),
        ("printf", "printf"),
    ],
)
def test_demangling(mangled, readable):
    assert demangle_name(mangled) == readable


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"memcpy@@GLIBC_2.14", "memcpy"),
        (b"memcpy@GLIBC_2.2.5", "memcpy"),
        (b"@odd", "@odd"),
        (b"two\nlines;and more", "two\nlines;and more"),
        (b"\x1b[31mred\x07\x7f", "\ufffd[31mred\ufffd\ufffd"),
        (b"not \xff utf-8", "not \ufffd utf-8"),
        ("right\u202eleft".encode(), "right\ufffdleft"),
    ],
)
def test_raw_names_become_harmless(raw, text):
    assert decode_name(raw) == text


@given(st.binary(max_size=300))
def test_any_bytes_can_be_stored(raw):
    (function,), (system_name,) = readable_names([b"_Z" + raw])
    for text in (function, system_name):
        text.encode()
        assert not any(char != "\n" and (char < " " or "\x7f" <= char < "\xa0") for char in text)


@given(st.text(max_size=50))
def test_paths_with_bytes_of_no_encoding_can_be_stored(text):
    clean_text(text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")).encode()


def number(index):
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    text = ""
    while index:
        index, digit = divmod(index, 36)
        text = digits[digit] + text
    return text or "0"


def doubling_name(levels):
    """A short name whose spelling doubles with every level: each argument is the pair of the one before."""
    return "_Z1f1AIiiE" + "".join(f"S_IS{number(level)}_S{number(level)}_E" for level in range(levels))


@pytest.mark.parametrize(
    "name",
    [
        doubling_name(40),
        doubling_name(300),
        "_Z1f" + "P" * 4000 + "i",
        "_Z1f" + "1AI" * 1200,
        "_ZStlsIcSt11char_traits" + "IcIcSt11char_traits" * 100,
        "_RINvC1a1b" + "TB1_" * 900 + "E",
        "_Z" + "x" * 100_000,
    ],
)
def test_hostile_names_stay_mangled_and_cost_little(name):
    started = time.process_time()
    assert demangle_name(name) == name
    assert time.process_time() - started < 2


def test_one_file_cannot_fill_the_memory_with_names():
    raws = [b"%04d" % i + b"n" * 4000 for i in range(2000)]
    functions, system_names = readable_names(raws)
    assert sum(map(len, functions + system_names)) < 2 * MAX_TABLE_CHARS
    assert functions[-1].startswith("1999nnn") and functions[-1].endswith("…")
