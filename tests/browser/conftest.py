"""A store with hostile names, a viewer on a free port, and a browser that reports everything it dislikes."""

import threading

import pytest
from playwright.sync_api import sync_playwright
from sample_windows import CALLS, START_NS, WINDOW_NS, make_symbolised

from storage.store import Store
from storage.writer import AgentCost, StoreWriter
from ui.web.app import create_app
from ui.web.server import Server

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WINDOWS = 12
HOSTILE_NAMES = (
    "<img src=x onerror=document.title='owned'>",
    "safe\u202eexe.cod",
    "a\nb\u0000c",
    "long" * 2500,
    "{{7*7}}${7*7}",
)
HOSTILE_CALLS = tuple(("hostile", ("user/evil/main", f"user/evil/{name}"), 2) for name in HOSTILE_NAMES)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    opened = Store.open(tmp_path_factory.mktemp("browser") / "store", create=True)
    with StoreWriter(opened, "node-a") as writer:
        for window in range(WINDOWS):
            if window in (5, 6):
                continue  # a gap
            calls = CALLS + (HOSTILE_CALLS if window >= 8 else ())
            symbolised = make_symbolised(
                START_NS + window * WINDOW_NS, calls, counters={"lost_ring_full": 3 if window == 2 else 0}
            )
            writer.append(symbolised, AgentCost(50_000_000, 90 << 20, 8 << 20))
    return opened


@pytest.fixture(scope="session")
def hostile_names():
    return HOSTILE_NAMES


@pytest.fixture(scope="session")
def start_viewer():
    """Start viewers of any store; returns their addresses, stops them all at the end."""
    running = []

    def start(store, **options):
        server = Server(create_app(store, allowed_hosts=frozenset({"127.0.0.1"}), **options), port=0)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return server.address

    yield start
    for server, thread in running:
        server.stop()
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def viewer(store, start_viewer):
    """The address of the viewer; its clock stands at the end of the store."""
    return start_viewer(store, now_ns=lambda: START_NS + WINDOWS * WINDOW_NS)


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page that fails its test for any console error, script error, policy violation or foreign request."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    opened = context.new_page()
    complaints = []
    opened.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda asked: complaints.append(asked.url) if is_foreign(asked.url) else None)
    opened.complaints = complaints
    yield opened
    context.close()
    assert complaints == []


def is_foreign(url):
    return not url.startswith(("http://127.0.0.1:", "file:///", "data:", "blob:"))
