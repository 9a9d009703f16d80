"""Opening a store: each way it can be refused has its own line."""

import json

import pytest

from profiler.errors import BadInput, StoreUnavailable
from storage.schema import FORMAT_VERSION
from storage.store import Store


def test_a_new_store_can_be_opened_again(tmp_path):
    Store.open(tmp_path / "a" / "b", create=True)
    assert Store.open(tmp_path / "a" / "b").node_names() == ()
    assert Store.open(tmp_path / "a" / "b", create=True).root == tmp_path / "a" / "b"


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(StoreUnavailable, match=f"no coprof store at {tmp_path / 'no'}"):
        Store.open(tmp_path / "no")


def test_a_directory_of_something_else_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreUnavailable, match="not empty and not a coprof store"):
        Store.open(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_file_system_and_a_torn_creation_are_taken(tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "_FORMAT.json.tmp").write_text('{"form')
    Store.open(tmp_path, create=True)
    assert json.loads((tmp_path / "FORMAT.json").read_text())["version"] == FORMAT_VERSION


@pytest.mark.parametrize("text", ['{"format": "coprof", "version": 99}', '{"version": "x"}'])
def test_a_newer_format_is_refused(tmp_path, text):
    (tmp_path / "FORMAT.json").write_text(text)
    with pytest.raises(StoreUnavailable, match="use a newer coprof"):
        Store.open(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00"])
def test_a_damaged_format_file_is_refused(tmp_path, text):
    (tmp_path / "FORMAT.json").write_text(text)
    with pytest.raises(StoreUnavailable, match="cannot read"):
        Store.open(tmp_path, create=True)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailable, match="cannot create a store"):
        Store.open(tmp_path / "file" / "store", create=True)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "_x", "a/b", "a\nb", "é", "x" * 300])
def test_a_node_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match="cannot name a folder"):
        Store(tmp_path).node_folder(name)
