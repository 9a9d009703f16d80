"""The single-file flame graph: whole, closed, and deaf to hostile names."""

import base64
import hashlib
import json
import re

import pytest
from sample_windows import START_NS, WINDOW_NS, make_symbolised

from analysis.flame import read_flame
from storage.selection import Selection
from storage.store import Store
from storage.writer import AgentCost, StoreWriter
from ui.flamefile import ENTRY, STATIC, bundle, render_flame_html

HOSTILE = "</script><script>alert(1)</script>&\u2028<!--"


@pytest.fixture
def flame(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    with StoreWriter(store, "node-a") as writer:
        calls = (("web", ("user/web/main", f"user/web/{HOSTILE}"), 3),)
        writer.append(make_symbolised(calls=calls, counters={"lost_ring_full": 2}), AgentCost())
    return read_flame(store, Selection(START_NS, START_NS + WINDOW_NS))


def test_data_comes_back_whole(flame):
    page = render_flame_html(flame, "title", "subtitle")
    data = re.search(r'<script type="application/json" id="flame-data">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in data
    assert data.isascii()
    assert any(text.startswith("</script>") for text in json.loads(data)["strings"])


def test_hostile_texts_open_no_element(flame):
    page = render_flame_html(flame, f"t {HOSTILE}", f"s {HOSTILE} \u202e")
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\u2028" not in page
    assert "&lt;U+202E&gt;" in page


def test_policy_admits_exactly_this_script_and_style(flame):
    page = render_flame_html(flame, "title", "subtitle")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in (r'<script type="module">', "<style>"):
        body = re.search(rf"{tag}(.*?)</", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_page_needs_nothing_else(flame):
    page = render_flame_html(flame, "title", "subtitle")
    assert not re.search(r"\b(?:src|href)=", page)
    assert "https:" not in page


def test_losses_are_in_the_page(flame):
    page = render_flame_html(flame, "title", "subtitle")
    assert "1 windows" not in page
    assert "1 window ·" in page
    assert "2 lost_ring_full" in page


def test_bundle_has_every_module_once_after_its_imports():
    script = bundle(STATIC / "js", ENTRY)
    modules = re.findall(r"^const module_(\w+) = ", script, re.MULTILINE)
    assert modules[-1] == "filepage"
    assert len(set(modules)) == len(modules)
    assert modules.index("format") < modules.index("tree") < modules.index("flameview") < modules.index("flamepanel")
    assert "viewer" not in modules


@pytest.mark.parametrize(
    "source",
    [
        'import * as all from "./other.js";\n',
        'import { a as b } from "./other.js";\n',
        'import thing from "elsewhere";\n',
        "export default 1;\n",
        'const text = "</script>";\n',
    ],
)
def test_modules_of_another_form_are_refused(tmp_path, source):
    (tmp_path / "other.js").write_text("export const a = 1;\n")
    (tmp_path / "entry.js").write_text(source)
    with pytest.raises(ValueError, match=r"entry\.js cannot be written into a page"):
        bundle(tmp_path, "entry.js")


def test_a_circle_of_imports_is_refused(tmp_path):
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\nexport const a = b;\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\nexport const b = a;\n')
    with pytest.raises(ValueError, match="in a circle"):
        bundle(tmp_path, "a.js")
