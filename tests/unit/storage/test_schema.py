"""What every reader of the store may rely on."""

import pyarrow as pa
import pytest

from profiler.window import COUNTERS
from storage.schema import FORMAT_VERSION, TABLES

FIELDS = [(table, field) for table in TABLES.values() for field in table.schema]


def test_nodes_complete_a_window_and_are_published_last():
    assert list(TABLES)[-1] == "nodes"
    assert list(TABLES).index("frames") < list(TABLES).index("stacks") < list(TABLES).index("samples_10s")


def test_every_counter_is_a_column_of_nodes():
    assert set(COUNTERS) <= set(TABLES["nodes"].schema.names)


@pytest.mark.parametrize("table, field", FIELDS, ids=lambda part: part.name)
def test_types_are_those_that_every_reader_knows(table, field):
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if pa.types.is_timestamp(kind):
        assert (kind.unit, kind.tz, field.metadata[b"unit"]) == ("us", "UTC", b"us")
    else:
        assert pa.types.is_signed_integer(kind) or kind == pa.string()
    if field.name.endswith(("_ns", "_bytes")):
        assert field.metadata[b"unit"].decode() == field.name.rpartition("_")[2]


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_tables_carry_the_format_version_and_sort_by_their_columns(table):
    assert table.schema.metadata[b"coprof.format_version"] == str(FORMAT_VERSION).encode()
    assert set(table.sort) <= set(table.schema.names)
