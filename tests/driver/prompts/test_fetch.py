"""A source at a URL is downloaded, with retries for temporary errors and a size limit."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest

from openseer_core.errors import PromptsError
from openseer_driver.prompts import fetch
from tests.driver.prompts.sources import read, refused

LINES = b'{"prompt": "one"}\n{"prompt": "two"}\n'


class Web(ThreadingHTTPServer):
    """A server that plays `script` in order, then returns LINES. Each entry: a status, or the bytes after which the
    answer breaks off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script: list[int] = []
        self.body = LINES
        self.calls = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/prompts.jsonl"


class Answer(BaseHTTPRequestHandler):
    """One answer."""

    def do_GET(self) -> None:
        web = cast("Web", self.server)
        web.calls += 1
        step = web.script.pop(0) if web.script else len(web.body)
        self.send_response(step if step >= 400 else 200)
        self.send_header("Content-Length", str(0 if step >= 400 else len(web.body)))
        self.end_headers()
        if step < 400:
            self.wfile.write(web.body[:step])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(fetch, "RETRY_SECONDS", 0.0)
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_fetched_file_is_read_by_its_content(web: Web) -> None:
    assert [prompt.prompt for prompt in read(web.url)] == ["one", "two"]
    web.body = gzip.compress(LINES)
    assert [prompt.prompt for prompt in read(web.url)] == ["one", "two"]


def test_a_temporarily_failing_fetch_is_retried(web: Web) -> None:
    web.script = [503, 20, 429]
    assert len(read(web.url)) == 2
    assert web.calls == 4


def test_a_truncated_answer_is_never_used(web: Web) -> None:
    web.script = [18] * fetch.FETCH_TRIES
    message = refused(web.url)
    assert f"cannot be fetched after {fetch.FETCH_TRIES} tries: the answer ended after 18 of {len(LINES)}" in message


def test_a_fetch_answered_with_404_is_not_retried(web: Web) -> None:
    web.script = [404]
    assert "cannot be fetched: HTTP Error 404" in refused(web.url)
    assert web.calls == 1


def test_a_file_beyond_the_limit_is_refused(web: Web) -> None:
    with pytest.raises(PromptsError, match="found more than 10 bytes, which is the limit"):
        fetch.fetched(web.url, lambda _: None, limit=10)
    assert web.calls == 1
