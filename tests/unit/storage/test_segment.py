"""Names sort by time, and no damaged file passes for a segment."""

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_windows import make_symbolised

from storage.rows import sample_sums
from storage.schema import SAMPLES_10S
from storage.segment import has_footer, is_sound, name_bound, name_ms, segment_name, write_segment

TIMES_NS = st.integers(0, 2**62)


@pytest.fixture
def segment(tmp_path):
    path = tmp_path / "samples_10s" / "a.parquet"
    path.parent.mkdir()
    write_segment(sample_sums(make_symbolised()), SAMPLES_10S, path)
    return path


@given(TIMES_NS, TIMES_NS)
def test_names_compare_as_their_times(a, b):
    ms_a, ms_b = a // 1_000_000, b // 1_000_000
    assert (segment_name(a) >= name_bound(b)) == (ms_a >= ms_b)
    assert name_ms(segment_name(a)) == ms_a


def test_two_names_of_one_time_differ():
    assert segment_name(5) != segment_name(5)


def test_a_written_segment_is_sound(segment):
    assert has_footer(segment)
    assert is_sound(segment)


def test_any_truncation_is_seen_without_reading_the_file(segment, tmp_path):
    whole = segment.read_bytes()
    for length in range(len(whole)):
        torn = segment.parent / f"{length}.parquet"
        torn.write_bytes(whole[:length])
        assert not has_footer(torn)
        torn.unlink()


def test_a_flipped_bit_in_the_data_is_not_sound(segment, tmp_path):
    whole = bytearray(segment.read_bytes())
    column = pq.read_metadata(segment).row_group(0).column(3)
    end = column.dictionary_page_offset + column.total_compressed_size
    for at in range(end - 8, end):  # the values of a page, behind its header
        flipped = segment.parent / f"flip{at}.parquet"
        flipped.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert not is_sound(flipped), at


def test_a_segment_without_a_column_of_its_table_is_not_sound(segment):
    pq.write_table(pq.read_table(segment).rename_columns({"value": "valve"}), segment)
    assert not is_sound(segment)


def test_a_file_that_is_gone_is_not_sound(tmp_path):
    assert not is_sound(tmp_path / "gone.parquet")
