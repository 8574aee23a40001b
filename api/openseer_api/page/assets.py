"""Serves the page's built files in `static`. Their sources are in the top-level folder page."""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.responses import Response

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
INDEX = "index.html"
YEAR = "public, max-age=31536000, immutable"
"""`Cache-Control` of files whose name contains their digest."""


def asset(name: str) -> Response | None:
    """Returns a file of the page, by its path below `static`; None if it does not exist."""
    data = _all_files().get(name)
    if data is None:
        return None
    kept = "no-cache" if name == INDEX else YEAR
    return Response(data, media_type=TYPES[name.rpartition(".")[2]], headers={**HEADERS, "Cache-Control": kept})


@cache
def _all_files() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    _walk(files("openseer_api.page") / "static", "", found)
    return found


def _walk(folder: Traversable, prefix: str, found: dict[str, bytes]) -> None:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            _walk(entry, f"{prefix}{entry.name}/", found)
        elif entry.name.rpartition(".")[2] in TYPES:
            found[prefix + entry.name] = entry.read_bytes()
