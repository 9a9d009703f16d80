"""Which symbol an address gets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import CorruptData
from symbolizer import symtab
from symbolizer.elf import Elf
from symbolizer.symtab import read_symbols

TEXT, OFFSET = 0x401000, 0x1000
FUNC, NOTYPE, OBJECT, IFUNC = 2, 0, 1, 10
LOCAL, GLOBAL, WEAK = 0, 1, 2


def table_of(made, symbols, **options):
    raw = made.elf(symbols, **options)
    elf = Elf(lambda offset, length: raw[offset : offset + length], len(raw))
    return read_symbols(elf), elf


def names_at(made, symbols, *places, **options):
    """Names at distances from the start of the text, None where nothing covers."""
    table, elf = table_of(made, symbols, **options)
    rows = table.look_up(np.array([OFFSET + place for place in places], np.uint64)).tolist()
    return [table.raw_name(row, elf).decode() if row >= 0 else None for row in rows]


def test_a_sized_function_covers_its_bytes_only(made):
    symbols = [("f", TEXT + 16, 16, FUNC, GLOBAL)]
    assert names_at(made, symbols, 15, 16, 31, 32) == [None, "f", "f", None]


def test_outside_the_code_segment_there_is_nothing(made):
    symbols = [("f", TEXT, 0, FUNC, GLOBAL)]
    assert names_at(made, symbols, -1, 0, 0xFFF, 0x1000) == [None, "f", "f", None]


def test_an_unsized_function_reaches_to_the_next_symbol_or_the_section_end(made):
    symbols = [("asm", TEXT, 0, FUNC, GLOBAL), ("g", TEXT + 64, 8, FUNC, GLOBAL), ("end", TEXT + 72, 0, NOTYPE, LOCAL)]
    assert names_at(made, symbols, 0, 63, 64, 72, 0xFFF) == ["asm", "asm", "g", "end", "end"]


def test_a_label_inside_a_function_does_not_take_its_name(made):
    symbols = [("f", TEXT, 64, FUNC, GLOBAL), ("label", TEXT + 32, 0, NOTYPE, LOCAL)]
    assert names_at(made, symbols, 31, 32, 63, 64) == ["f", "f", "f", None]


def test_after_an_inner_function_the_outer_one_goes_on(made):
    symbols = [("outer", TEXT, 64, FUNC, GLOBAL), ("inner", TEXT + 16, 16, FUNC, LOCAL)]
    assert names_at(made, symbols, 8, 16, 31, 32, 63, 64) == ["outer", "inner", "inner", "outer", "outer", None]


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        (("a", 0, FUNC, GLOBAL), ("b", 16, FUNC, LOCAL)),
        (("a", 16, FUNC, LOCAL), ("b", 16, FUNC, GLOBAL)),
        (("a", 16, FUNC, WEAK), ("b", 16, FUNC, LOCAL)),
        (("a", 16, NOTYPE, GLOBAL), ("b", 16, FUNC, WEAK)),
        (("__a", 16, FUNC, GLOBAL), ("_b", 16, FUNC, GLOBAL)),
        (("_a", 16, FUNC, GLOBAL), ("b", 16, FUNC, GLOBAL)),
    ],
)
def test_of_two_names_the_better_one_is_kept(made, worse, better):
    rows = [(name, TEXT, *rest) for name, *rest in (worse, better)]
    assert names_at(made, rows, 4) == names_at(made, rows[::-1], 4) == [better[0]]


def test_indirect_functions_count_and_data_does_not(made):
    symbols = [("memcpy", TEXT, 16, IFUNC, GLOBAL), ("table", TEXT + 16, 16, OBJECT, GLOBAL)]
    assert names_at(made, symbols, 0, 16) == ["memcpy", None]


def test_dynamic_symbols_serve_a_stripped_file(made):
    assert names_at(made, [("f", TEXT, 16, FUNC, GLOBAL)], 0, table=11) == ["f"]


def test_a_size_beyond_the_section_is_cut(made):
    assert names_at(made, [("f", TEXT + 16, 1 << 63, FUNC, GLOBAL)], 16, 0xFFF) == ["f", "f"]


def test_names_of_a_large_string_table_stay_in_the_file(made, monkeypatch):
    monkeypatch.setattr(symtab, "MAX_KEPT_NAMES_BYTES", 4)
    symbols = [("first", TEXT, 16, FUNC, GLOBAL), ("second", TEXT + 16, 16, FUNC, GLOBAL)]
    assert table_of(made, symbols)[0].strings == b""
    assert names_at(made, symbols, 0, 16) == ["first", "second"]


def test_tables_are_read_in_chunks(made, monkeypatch):
    monkeypatch.setattr(symtab, "CHUNK_SYMBOLS", 3)
    symbols = [(f"f{i}", TEXT + 16 * i, 16, FUNC, GLOBAL) for i in range(10)]
    assert names_at(made, symbols, *range(0, 160, 16)) == [f"f{i}" for i in range(10)]


def test_too_many_symbols_are_refused(made, monkeypatch):
    monkeypatch.setattr(symtab, "MAX_SYMBOLS", 2)
    with pytest.raises(CorruptData, match="symbol table of 3 entries, more than the 2 that are read"):
        table_of(made, [("f", TEXT, 16, FUNC, GLOBAL), ("g", TEXT, 16, FUNC, GLOBAL)])


spans = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), min_size=1, max_size=8)


@given(spans, st.integers(0, 260))
def test_an_address_gets_the_last_function_that_covers_it(made, spans, place):
    symbols = [(f"f{i}", TEXT + start, size, FUNC, GLOBAL) for i, (start, size) in enumerate(dict(spans).items())]
    covering = [
        (start, f"f{i}") for i, (start, size) in enumerate(dict(spans).items()) if start <= place < start + size
    ]
    expected = max(covering)[1] if covering else None
    assert names_at(made, symbols, place) == [expected]
