"""The pages and answers of the viewer, over a small real store."""

import gzip
import http.client
import json
import socket
import threading
import urllib.request

import numpy as np
import pytest
from sample_windows import START_NS, WINDOW_NS, make_symbolised

from analysis.flame import read_flame
from profiler.errors import BadInput
from storage.selection import Selection
from storage.store import Store
from storage.writer import AgentCost, StoreWriter
from ui.web.app import create_app
from ui.web.guard import host_name
from ui.web.server import Server, listen
from ui.web.wire import tree_document

NOW_NS = START_NS + 3 * WINDOW_NS
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "store", create=True)
    with StoreWriter(opened, "node-a") as writer:
        for window in range(3):
            counters = {"lost_ring_full": 4, "idle_ticks": 9}
            writer.append(
                make_symbolised(START_NS + window * WINDOW_NS, counters=counters), AgentCost(cpu_ns=100_000_000)
            )
    return opened


@pytest.fixture
def app(store):
    return create_app(store, allowed_hosts=HOSTS, now_ns=lambda: NOW_NS)


@pytest.fixture
def client(app):
    return app.test_client()


def test_flame_is_a_tree_in_columns(client):
    answer = client.get("/api/v1/flame?since=-1m&workload=web").get_json()
    tree, strings = answer["tree"], answer["strings"]
    names = [strings[answer["frames"]["name"][frame]] for frame in tree["frame"]]
    assert list(zip(tree["depth"], names, strict=True)) == [
        (0, "all"),
        (1, "web"),
        (2, "main"),
        (3, "serve"),
        (4, "parse"),
        (4, "write"),
        (5, "vfs_write"),
    ]
    assert sum(tree["self"]) == 3 * 9 * 20_000_000
    assert tree["samples"][0] == 27
    assert answer["windows"] == 3
    assert answer["range"]["until_ms"] - answer["range"]["since_ms"] == 60_000


def test_flame_says_what_was_lost_and_in_which_words(client):
    losses = client.get("/api/v1/flame?since=-1m").get_json()["losses"]
    assert [(loss["counter"], loss["count"]) for loss in losses] == [("lost_ring_full", 12)]
    assert "ring was full" in losses[0]["meaning"]


def test_flame_of_few_nodes_keeps_the_total(client):
    full = client.get("/api/v1/flame?since=-1m").get_json()
    small = client.get("/api/v1/flame?since=-1m&max_nodes=5").get_json()
    assert len(small["tree"]["depth"]) <= 5
    assert sum(small["tree"]["self"]) == sum(full["tree"]["self"])
    assert "(other)" in small["strings"]
    assert small["nodes"] == len(full["tree"]["depth"])


def test_document_holds_every_text_once_and_only_used_frames(store):
    tree = read_flame(store, Selection(START_NS, NOW_NS)).tree
    document = tree_document(tree)
    assert len(set(document["strings"])) == len(document["strings"])
    assert len(document["frames"]["name"]) == len(np.unique(tree.name))


def test_overview_counts_cores_over_the_time_that_windows_cover(client):
    answer = client.get("/api/v1/overview?since=-1h").get_json()
    web = next(row for row in answer["workloads"] if row["workload"] == "web")
    assert web["service_class"] == "online"
    assert web["cores"] == pytest.approx(9 * 0.02 / 10)  # 9 samples of 20 ms in each 10 s, not in the hour
    assert answer["covered_ms"] == 30_000
    assert answer["agent"]["cpu_pct"] == pytest.approx(1.0)
    assert sum(answer["quality"].values()) == pytest.approx(1)


def test_a_gap_is_null_and_not_zero(store, client):
    with StoreWriter(store, "node-a") as writer:
        writer.append(make_symbolised(START_NS + 9 * WINDOW_NS), AgentCost())
    answer = client.get("/api/v1/overview?since=2025-11-30T11:00:00Z&until=2025-11-30T11:02:00Z").get_json()
    line = answer["series"]["cores"][0]
    assert len(line) == 10
    assert line[3:9] == [None] * 6
    assert None not in line[:3] + line[9:]
    assert answer["gap_ms"] == 60_000


def test_empty_store_answers_with_nulls(tmp_path):
    app = create_app(Store.open(tmp_path, create=True), allowed_hosts=HOSTS)
    answer = app.test_client().get("/api/v1/overview").get_json()
    assert (answer["first_ms"], answer["last_ms"], answer["workloads"]) == (None, None, [])
    assert app.test_client().get("/api/v1/flame").get_json()["tree"]["samples"] == [0]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("since=yesterday", "not a time: 'yesterday'"),
        ("since=now&until=-5m", "empty time range"),
        ("max_nodes=0", "max_nodes '0' is not a number"),
        ("max_nodes=1e3", "max_nodes '1e3' is not a number"),
        ("since=-5m&since=-6m", "parameter since given 2 times"),
        ("since=-1m&workload=nobody", "nobody"),
        ("since=-1m&node=nowhere", "nowhere"),
    ],
)
def test_bad_questions_get_one_clear_line(client, query, words):
    response = client.get(f"/api/v1/flame?{query}")
    assert response.status_code == 400
    assert words in response.get_json()["error"]
    assert "\n" not in response.get_json()["error"]


def test_missing_store_is_503_and_unknown_page_404(tmp_path, client):
    from profiler.errors import StoreUnavailable
    from ui.web import app as module

    def refuse(*_args, **_kwargs):
        raise StoreUnavailable("store /gone is missing; start the agent")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_overview", refuse)
        response = client.get("/api/v1/overview")
        assert client.get("/healthz").status_code == 503
    assert (response.status_code, response.get_json()) == (503, {"error": "store /gone is missing; start the agent"})
    assert client.get("/healthz").status_code == 200
    assert client.get("/api/v1/secrets").status_code == 404
    assert client.post("/api/v1/flame").status_code == 405
    assert client.get("/static/vendor/uplot/../../package.json").status_code == 404


def test_every_answer_is_guarded(client):
    for path in ("/", "/api/v1/flame?since=bad", "/static/js/viewer.js", "/nowhere"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_page_has_no_inline_script_or_style_and_no_foreign_address(client):
    page = client.get("/").get_data(as_text=True)
    assert "<script>" not in page
    assert "style=" not in page
    assert "onclick" not in page
    assert "//" not in page.replace("<!doctype html>", "")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "127.0.0.1:80:80"])
def test_foreign_hosts_are_refused(client, host):
    response = client.get("/api/v1/overview", headers={"Host": host})
    assert response.status_code == 421
    assert b"workloads" not in response.data


def test_host_names():
    assert host_name("LocalHost:7070") == "localhost"
    assert host_name("[::1]:7070") == "[::1]"
    assert host_name("[::1]") == "[::1]"
    assert host_name("localhost:") == ""


def test_big_answers_are_compressed_when_accepted(client):
    plain = client.get("/api/v1/overview?since=-1m")
    packed = client.get("/api/v1/overview?since=-1m", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.data)) == plain.get_json()


def test_unchanged_answer_is_304_although_the_clock_moved(store):
    now = [NOW_NS]
    client = create_app(store, allowed_hosts=HOSTS, now_ns=lambda: now[0]).test_client()
    tag = client.get("/api/v1/flame?since=-1h").headers["ETag"]
    now[0] += 5_000_000_000
    again = client.get("/api/v1/flame?since=-1h", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get("/api/v1/flame?since=-1h&workload=web", headers={"If-None-Match": tag})
    assert other.status_code == 200


def test_hostile_names_travel_as_json_text(tmp_path):
    name = "<img src=x onerror=alert(1)></script>\u202e\u2028"
    opened = Store.open(tmp_path, create=True)
    with StoreWriter(opened, "node-a") as writer:
        writer.append(make_symbolised(calls=(("web", (f"user/web/{name}",), 3),)), AgentCost())
    response = create_app(opened, allowed_hosts=HOSTS, now_ns=lambda: NOW_NS).test_client().get("/api/v1/flame")
    assert response.mimetype == "application/json"
    assert name in response.get_json()["strings"]


def test_taken_port_is_one_clear_error():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} on 127.0.0.1 is taken; choose another with --port"):
            listen("127.0.0.1", port)


def test_foreign_address_and_impossible_port_are_refused():
    with pytest.raises(BadInput, match=r"cannot listen on 192\.0\.2\.1 port 7070"):
        listen("192.0.2.1", 7070)
    with pytest.raises(BadInput, match=r"cannot listen on 127\.0\.0\.1 port 70000"):
        listen("127.0.0.1", 70_000)


def test_server_answers_and_stops_from_another_thread(app):
    server = Server(app, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    with urllib.request.urlopen(f"{server.address}healthz") as response:
        assert response.read() == b"ok\n"
        assert "waitress" not in str(response.headers).lower()
    idle = http.client.HTTPConnection("127.0.0.1", server.port)
    idle.connect()  # a connection that says nothing must not hold the server up
    server.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
    idle.close()
    server.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
