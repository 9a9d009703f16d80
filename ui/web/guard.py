"""What every answer of the viewer carries, and which requests get none: the defence of a page on a local port.

Names in a profile come from other people's programs. The policy lets the page load its own files and nothing else, so
a name that slipped through as markup could neither run nor report. A `Host` header that nobody configured is refused:
else a foreign page could reach this port under its own name (DNS rebinding) and read the answers.
"""

from __future__ import annotations

from flask import Flask, Response, request

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text becomes markup, whoever tries
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def guard(app: Flask, allowed_hosts: frozenset[str]) -> None:
    """Refuse foreign hosts before, and add `HEADERS` after, every request; host names without port, in lower case."""

    @app.before_request
    def refuse_foreign_host() -> Response | None:
        if host_name(request.headers.get("Host", "")) in allowed_hosts:
            return None
        return Response("this viewer does not answer to that host name\n", status=421, mimetype="text/plain")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        response.headers.pop("Server", None)
        return response


def host_name(header: str) -> str:
    """Return the name of a `Host` header without its port, in lower case; "" where it cannot be one."""
    name, separator, port = header.strip().lower().rpartition(":")
    if not separator or port.endswith("]"):  # no port, or the colons of a bare "[::1]"
        return header.strip().lower()
    return name if port.isdigit() else ""
