"""Weights by URL: only from hosts that a job allows, and without passwords in messages."""

import functools
import http.server
import logging
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openseer_core.errors import LoadError
from openseer_core.weights.url import shown_url, url_problem, without_passwords
from openseer_process.logs import start_log
from openseer_worker.weights.fetching import fetch
from openseer_worker.weights.hashing import digest


class Moved(http.server.BaseHTTPRequestHandler):
    """A handler that redirects every file."""

    def __init__(self, to: str, *rest: object) -> None:
        self._to = to
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self._to}{self.path}?signature=secret")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def moved(url: str) -> Iterator[str]:
    """A server on 127.0.0.1 that redirects to `url` under the name localhost."""
    handler = functools.partial(Moved, url.replace("127.0.0.1", "localhost"))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield f"http://user:hidden@127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join()


def test_a_redirect_to_another_host_is_followed_only_if_allowed(moved: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"leads to http://localhost.*is on another host, which the job has to allow"):
        fetch(moved, tmp_path)
    with pytest.raises(LoadError, match=r"names host localhost, allowed by spec\.weights\.allowedHosts: 127\.0\.0\.1"):
        fetch(moved, tmp_path, allowed=("127.0.0.1",))
    assert fetch(moved, tmp_path, allowed=("127.0.0.1", "localhost")) == digest(folder)


@pytest.mark.parametrize("to", ["http:", "http://a..b", "http://xn--zzzzzz--"])
def test_a_redirect_to_an_invalid_host_is_an_error_of_the_weights(to: str, tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), functools.partial(Moved, to)) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        with pytest.raises(LoadError):
            fetch(
                f"http://127.0.0.1:{server.server_address[1]}", tmp_path, allowed=("127.0.0.1", "*.b", "xn--zzzzzz--")
            )
        server.shutdown()
        serving.join()


def test_a_name_that_cannot_be_encoded_is_an_error_of_the_weights(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no request can be made to it"):
        fetch("http://xn--zzzzzz--/v1", tmp_path)


def test_requests_of_weights_are_not_logged_with_their_addresses() -> None:
    level = logging.getLogger("httpx").level
    root = list(logging.getLogger().handlers), logging.getLogger().level
    try:
        start_log()
        assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)
    finally:
        logging.getLogger("httpx").setLevel(level)
        logging.getLogger().handlers, logging.getLogger().level = root


def test_no_message_repeats_a_password(moved: str, url: str, tmp_path: Path) -> None:
    named = url.replace("http://", "http://user:hidden@")
    attempts = [(moved, ()), (moved, ("elsewhere",)), (f"{named}/nothing", ()), ("http://user:hidden@127.0.0.1:9", ())]
    for address, allowed in attempts:
        with pytest.raises(LoadError) as refused:
            fetch(address, tmp_path, allowed=allowed)
        assert "hidden" not in str(refused.value)
        assert "127.0.0.1" in str(refused.value)
    with pytest.raises(LoadError, match="no longer wanted") as refused:
        fetch(named, tmp_path, lambda: True)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://store.example/run/v1", ""),
        ("https://a.store.example:8443/v1", ""),
        ("https://user:pw@cache/v1", ""),
        ("https://xstore.example/v1", "names host xstore.example"),
        ("https://store.example@evil.example/v1", "names host evil.example"),
        ("https://cache/v1?signature=1", "has no ?"),
        ("https:///v1", "is not the URL of a folder"),
        ("https://cache:port/v1", "is not the URL of a folder"),
        ("https://evil.example@store.example@cache/v1", "is not the URL of a folder"),
        ("https://cache\\@evil.example/v1", "names host evil.example"),
        ("https://cache\n.evil.example/v1", "is not the URL of a folder"),
        ("https://cache/v1\x7f", "is not the URL of a folder"),
        ("https://cache..store.example/v1", "is not the URL of a folder"),
        (f"https://{64 * 'a'}.store.example/v1", "is not the URL of a folder"),
        ("https://./v1", "is not the URL of a folder"),
        ("https://cache:70000/v1", "is not the URL of a folder"),
        ("https://[:::::]/v1", "is no IPv6 address"),
    ],
)
def test_new_weights_are_fetched_only_from_hosts_that_the_job_lists(url: str, problem: str) -> None:
    found = url_problem(url, ("store.example", "*.store.example", "cache"))
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://cache:8443/v1", ""),
        ("https://cache/v1", "names host cache at port 443, allowed by spec.weights.allowedHosts: cache:8443, "),
        ("http://cache:80/v1", "names host cache at port 80"),
        ("http://a.store.example/v1", ""),
        ("https://a.store.example/v1", "at port 443"),
        ("https://open.example:1/v1", ""),
    ],
)
def test_a_host_with_a_port_is_allowed_at_that_port_alone(url: str, problem: str) -> None:
    found = url_problem(url, ("cache:8443", "*.store.example:80", "open.example"))
    assert problem in found
    assert bool(found) == bool(problem)


def test_an_address_is_shown_without_user_and_password() -> None:
    assert shown_url("https://user:p@ss@host:1/a@b") == "https://host:1/a@b"
    assert shown_url("https://host/a") == "https://host/a"
    assert shown_url("https://host/a@b") == "https://host/a@b"
    for sign in "/?#":
        assert shown_url(f"https://user:p{sign}w@host/a") == "https://host/a"
    assert shown_url("user:pw@host:1") == "host:1"
    assert without_passwords("found http://u:p@ss@host/a@b, http:/u:pw@host") == "found http://host/a@b, http:/host"
