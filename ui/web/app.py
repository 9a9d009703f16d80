"""A store to web pages: one page, its static files, and the JSON answers that it draws.

    /                      the viewer; its query string is its whole state
    /api/v1/overview       ?since= &until= &last= &node=
    /api/v1/flame          ?since= &until= &last= &node= &workload= &cgroup= &kind=cpu &max_nodes=65536
    /healthz               "ok" when the store can be read

Times are those of `ui.timespan`. Answers carry the range that was used and an `ETag`, so that polling an unchanged
range costs a 304. Errors are `{"error": "<one line>"}`: 400 for the asker's, 503 for the store's, 404 elsewhere.
Documents are in `ui.web.wire`. Nothing here writes to the store, and every method but GET is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from flask import Flask, Response, render_template, request, send_from_directory
from werkzeug.exceptions import HTTPException, NotFound

from analysis.flame import read_flame
from analysis.overview import read_overview
from profiler.errors import BadInput, CoprofError
from storage.selection import Selection
from storage.store import Store
from ui.timespan import TimeRange, format_time, parse_range
from ui.web.guard import guard
from ui.web.wire import DEFAULT_MAX_NODES, MS_NS, Document, flame_document, overview_document

MOST_NODES = 1_000_000
COMPRESS_FROM_BYTES = 1024  # below, a header outweighs the gain
# Installed by npm beside the packages; served from here alone, by name.
CHART_LIBRARY = Path(__file__).parents[2] / "node_modules" / "uplot" / "dist"
CHART_FILES = frozenset({"uPlot.iife.min.js", "uPlot.min.css"})


def create_app(store: Store, *, allowed_hosts: frozenset[str], now_ns: Callable[[], int] = time.time_ns) -> Flask:
    """Return the application that reads `store` and answers to `allowed_hosts` (names without port) only."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    guard(app, allowed_hosts)
    _add_pages(app, store)
    _add_api(app, store, now_ns)
    _add_errors(app)
    return app


def _add_pages(app: Flask, store: Store) -> None:
    @app.get("/")
    def page() -> Response:
        response = Response(render_template("viewer.html"), mimetype="text/html")
        response.headers["Cache-Control"] = "no-cache"
        return response

    @app.get("/static/vendor/uplot/<name>")
    def chart_library(name: str) -> Response:
        if name not in CHART_FILES:
            raise NotFound
        return send_from_directory(CHART_LIBRARY, name)

    @app.get("/favicon.ico")
    def icon() -> Response:
        return app.send_static_file("icon.svg")


def _add_api(app: Flask, store: Store, now_ns: Callable[[], int]) -> None:
    @app.get("/api/v1/overview")
    def overview() -> Response:
        asked = _asked_range(now_ns())
        answer = read_overview(store, asked.since_ns, asked.until_ns, node=_text("node"))
        return _answer(overview_document(answer, asked), asked)

    @app.get("/api/v1/flame")
    def flame() -> Response:
        asked = _asked_range(now_ns())
        max_nodes = _max_nodes()
        selection = Selection(
            asked.since_ns,
            asked.until_ns,
            workload=_text("workload"),
            cgroup=_text("cgroup"),
            node=_text("node"),
            kind=_text("kind") or "cpu",
        )
        return _answer(flame_document(read_flame(store, selection), max_nodes), asked)

    @app.get("/healthz")
    def health() -> Response:
        now = now_ns()
        read_overview(store, now - 60_000_000_000, now)
        return Response("ok\n", mimetype="text/plain")


def _add_errors(app: Flask) -> None:
    @app.errorhandler(CoprofError)
    def of_ours(error: CoprofError) -> Response:
        return _json({"error": str(error)}, 400 if isinstance(error, BadInput) else 503)

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> Response:
        return _json({"error": f"{(error.name or 'error').lower()}: {request.path[:200]}"}, error.code or 500)


def _asked_range(now_ns: int) -> TimeRange:
    return parse_range(_text("since"), _text("until"), _text("last"), now_ns=now_ns)


def _text(key: str) -> str | None:
    """Return a parameter; an empty one counts as not given, one given twice is refused."""
    values = request.args.getlist(key)
    if len(values) > 1:
        raise BadInput(f"parameter {key} given {len(values)} times; give it once")
    return values[0] if values and values[0] else None


def _max_nodes() -> int:
    text = _text("max_nodes")
    if text is None:
        return DEFAULT_MAX_NODES
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MOST_NODES):
        raise BadInput(f"max_nodes {text[:20]!r} is not a number from 1 to {MOST_NODES}")
    return int(text)


def _answer(document: Document, asked: TimeRange) -> Response:
    """Return `document` with its range; 304 when the browser has all of it but the range, which moves by itself."""
    tag = hashlib.blake2b(msgspec.json.encode(document), digest_size=12).hexdigest()
    limits = {
        "since": format_time(asked.since_ns),
        "until": format_time(asked.until_ns),
        "since_ms": asked.since_ns / MS_NS,
        "until_ms": asked.until_ns / MS_NS,
    }
    response = _json({"range": limits, **document}, 200)
    response.set_etag(tag, weak=True)
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Vary"] = "Accept-Encoding"
    return response.make_conditional(request)  # type: ignore[return-value]


def _json(document: Document, status: int) -> Response:
    body = msgspec.json.encode(document)
    response = Response(body, status=status, mimetype="application/json")
    if len(body) >= COMPRESS_FROM_BYTES and request.accept_encodings["gzip"] > 0:
        response.set_data(gzip.compress(body, compresslevel=5, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    return response
