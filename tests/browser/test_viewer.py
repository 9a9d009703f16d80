"""The viewer in a real browser, over a real store, driven as a person drives it."""

import re
import time

import pytest
from playwright.sync_api import expect
from sample_windows import START_NS, WINDOW_NS, make_symbolised

from analysis.flame import read_flame
from storage.selection import Selection
from storage.store import Store
from storage.writer import AgentCost, StoreWriter
from ui.flamefile import render_flame_html

SEARCH = "Search frames"


def open_viewer(page, viewer, query=""):
    page.goto(viewer + query)
    expect(page.locator(".functions tbody tr").first).to_be_visible()
    return page


def point_at(page, level, share=0.5):
    """The middle of a level of the icicle, at a share of its width."""
    box = page.locator(".flame-scroller").bounding_box()
    return box["x"] + (box["width"] - 12) * share, box["y"] + (level + 0.5) * 20


def crumbs(page):
    return page.locator(".crumbs li").all_inner_texts()


def painted_colours(page):
    """How many different colours the flame graph shows: a blank or broken canvas has one."""
    return page.evaluate("""() => {
        const canvas = document.querySelector(".stage canvas:first-child");
        const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(image.data.buffer)).size;
    }""")


def test_first_page_shows_workloads_graph_and_losses(page, viewer):
    open_viewer(page, viewer)
    rows = page.locator("#workloads tr")
    expect(rows).to_have_count(5)
    assert rows.nth(0).inner_text().startswith("All workloads")
    assert re.search(r"web\s+online\s+0\.018", rows.nth(1).inner_text())
    expect(page.locator("#trust")).to_contain_text("10 windows")
    expect(page.locator("#trust")).to_contain_text("20.0 s without windows")
    expect(page.locator("#trust")).to_contain_text("3 lost")
    expect(page.locator("#chart canvas")).to_be_visible()
    assert painted_colours(page) > 10


def test_workload_is_picked_and_back_goes_back(page, viewer):
    open_viewer(page, viewer)
    page.get_by_role("link", name="batch").click()
    expect(page.locator("#workloads tr.chosen")).to_contain_text("batch")
    expect(page.locator(".functions")).not_to_contain_text("serve")
    expect(page.locator(".functions")).to_contain_text("inner")
    assert "workload=batch" in page.url
    page.go_back()
    expect(page.locator(".functions")).to_contain_text("serve")
    expect(page.locator("#workloads tr.chosen")).to_contain_text("All workloads")
    page.go_forward()
    expect(page.locator("#workloads tr.chosen")).to_contain_text("batch")


def test_zoom_by_click_survives_reload_and_breadcrumb_leads_out(page, viewer):
    open_viewer(page, viewer, "?workload=web")
    page.mouse.click(*point_at(page, 4, 0.3))
    assert crumbs(page) == ["all", "web", "main", "serve", "parse"]
    assert re.search(r"zoom=[0-9a-f]{16}", page.url)
    page.reload()
    expect(page.locator(".crumbs li")).to_have_count(5)
    page.locator(".crumbs button", has_text="main").click()
    assert crumbs(page) == ["all", "web", "main"]
    page.get_by_role("button", name="Whole graph").click()
    assert crumbs(page) == ["all"]


def test_wheel_and_drag_zoom(page, viewer):
    open_viewer(page, viewer, "?workload=web")
    page.mouse.move(*point_at(page, 3, 0.2))
    for _ in range(6):
        page.mouse.wheel(0, -300)
    expect(page.locator(".crumbs li")).to_have_count(5)
    page.keyboard.press("0")
    expect(page.locator(".crumbs li")).to_have_count(1)
    page.mouse.move(*point_at(page, 3, 0.1))
    page.mouse.down()
    page.mouse.move(*point_at(page, 3, 0.3), steps=4)
    page.mouse.up()
    expect(page.locator(".crumbs li").last).to_have_text("parse")


def test_search_says_how_much_matched_of_all_and_of_the_zoom(page, viewer):
    open_viewer(page, viewer, "?workload=web")
    page.keyboard.press("/")
    page.keyboard.type("/^vfs_/")
    expect(page.locator(".found")).to_have_text("matched 33.3 % of all · 1 frame")
    page.get_by_label(SEARCH).fill("parse")
    expect(page.locator(".found")).to_have_text("matched 55.6 % of all · 1 frame")
    page.keyboard.press("Enter")
    expect(page.locator(".said")).to_contain_text("parse · 1.00 s · 55.6 %")
    page.locator(".flame-scroller").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".found")).to_have_text("matched 55.6 % of all, 100 % of zoom · 1 frame")
    assert "search=parse" in page.url
    page.get_by_label(SEARCH).fill("/(/")
    expect(page.locator(".found")).to_have_text("not a regular expression")
    page.get_by_label(SEARCH).fill("nothing like it")
    expect(page.locator(".found")).to_have_text("no match")


def test_keyboard_walks_zooms_and_turns(page, viewer):
    open_viewer(page, viewer, "?workload=web")
    page.keyboard.press("f")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.locator(".said")).to_contain_text("parse")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".said")).to_contain_text("write")
    page.keyboard.press("Enter")
    assert crumbs(page)[-1] == "write"
    page.keyboard.press("Escape")
    assert crumbs(page)[-1] == "serve"
    page.keyboard.press("i")
    expect(page.get_by_role("button", name="Turn over")).to_have_text("Flame")
    assert "view=flame" in page.url
    page.keyboard.press("ArrowDown")  # now towards the root
    expect(page.locator(".said")).to_contain_text("serve")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", re.compile("dark|light"))
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_table_and_graph_are_linked_both_ways(page, viewer):
    open_viewer(page, viewer, "?workload=web")
    page.locator(".functions button", has_text="write").first.click()
    expect(page.locator(".found")).to_contain_text("matched 33.3 % of all")
    expect(page.locator(".functions tr.marked")).to_have_count(1)
    page.mouse.move(*point_at(page, 4, 0.3))
    expect(page.locator(".functions tr.marked")).to_contain_text("parse")
    expect(page.locator(".tooltip")).to_contain_text("1.00 s · 55.6 %")
    expect(page.locator(".tooltip")).to_contain_text("web · user code")


def test_a_frame_without_name_says_why(page, viewer):
    open_viewer(page, viewer, "?workload=batch")
    page.mouse.move(*point_at(page, 5))
    expect(page.locator(".tooltip")).to_contain_text("no name: no symbol at this address")


def test_dragging_in_the_chart_picks_a_part_and_stops_the_clock(page, viewer):
    open_viewer(page, viewer)
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "true")
    box = page.locator("#chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.985, box["y"] + 20, steps=4)
    page.mouse.up()
    expect(page.locator("#live")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#whole")).to_be_visible()
    assert re.search(r"from=\d+&to=\d+", page.url)
    expect(page.locator("#trust")).to_contain_text(re.compile(r"^\d+ samples3 windows"))
    page.keyboard.press("Escape")
    expect(page.locator("#whole")).to_be_hidden()
    expect(page.locator("#trust")).to_contain_text("10 windows")


def test_hostile_names_are_text(page, viewer, hostile_names):
    open_viewer(page, viewer, "?workload=hostile")
    table = page.locator(".functions")
    expect(table).to_contain_text(hostile_names[0])
    expect(table).to_contain_text("safe⟨U+202E⟩exe.cod")
    expect(table).to_contain_text("a⟨U+000A⟩b")
    expect(table).to_contain_text("{{7*7}}${7*7}")
    assert page.locator("table img, .tooltip img, .crumbs img").count() == 0
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        page.mouse.move(*point_at(page, 3, share))
        tooltip = page.locator(".tooltip").bounding_box()
        assert tooltip["width"] < 800
        assert tooltip["height"] < 400
    page.mouse.click(*point_at(page, 3, 0.5))
    assert page.title() == "hostile · coprof"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_ranges_without_data_say_so(page, viewer, start_viewer, tmp_path):
    page.goto(viewer + "?since=2020-01-01T00:00:00Z&until=2020-01-01T01:00:00Z")
    expect(page.locator(".message")).to_contain_text("No window in this range")
    expect(page.locator(".message")).to_contain_text("2025-11-30")
    page.goto(start_viewer(Store.open(tmp_path / "empty", create=True)))
    expect(page.locator(".message")).to_contain_text("No data yet")


def test_a_refused_question_is_shown_in_words(page, viewer):
    page.goto(viewer + "?since=yesterday")
    expect(page.locator("#banner")).to_contain_text("not a time: 'yesterday'")
    assert len(page.complaints) == 2
    assert all("400" in complaint for complaint in page.complaints)
    page.complaints.clear()


def test_live_takes_up_new_windows_and_keeps_the_zoom(page, start_viewer, tmp_path):
    now_ns = time.time_ns() // WINDOW_NS * WINDOW_NS
    store = Store.open(tmp_path / "live", create=True)
    address = start_viewer(store)
    with StoreWriter(store, "node-a") as writer:
        writer.append(make_symbolised(now_ns - 2 * WINDOW_NS), AgentCost())
        page.clock.install()
        open_viewer(page, address, "?workload=web")
        page.mouse.click(*point_at(page, 4, 0.3))
        assert crumbs(page)[-1] == "parse"
        expect(page.locator("#trust")).to_contain_text("1 windows")
        writer.append(make_symbolised(now_ns - WINDOW_NS), AgentCost())
        page.clock.run_for(11_000)
        expect(page.locator("#trust")).to_contain_text("2 windows")
        assert crumbs(page)[-1] == "parse"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_small_and_large_screens(chromium, viewer, scheme):
    for width, height in ((1280, 800), (3840, 2160)):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        opened = open_viewer(context.new_page(), viewer)
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert opened.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
        assert opened.locator(".stage").bounding_box()["height"] > height * 0.5
        context.close()


def test_single_file_works_from_disk(page, store, hostile_names, tmp_path):
    flame = read_flame(store, Selection(START_NS, START_NS + 12 * WINDOW_NS))
    path = tmp_path / "flame.html"
    path.write_text(render_flame_html(flame, f"flame {hostile_names[0]}", "node-a, 2 minutes"), encoding="utf-8")
    page.goto(path.as_uri())
    expect(page.locator(".functions")).to_contain_text("parse")
    assert painted_colours(page) > 10
    assert page.locator("img").count() == 0
    page.keyboard.press("/")
    page.keyboard.type("parse")
    expect(page.locator(".found")).to_contain_text("% of all")
    page.keyboard.press("Enter")
    page.locator(".flame-scroller").focus()
    page.keyboard.press("Enter")
    assert crumbs(page)[-1] == "parse"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
