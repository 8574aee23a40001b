"""The page in Debian's Chromium, over a played fleet."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.page.played_fleet import Fleet
from tests.page.played_server import COOKIE, TOKEN, Played, grown, make_app, play_in_thread
from tests.ports import reserved_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """One browser for a module's tests, each with its own page. Not for the whole session: its running event loop would
    block tests of asyncio."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Site:
    """A server of the page. `played` may be changed while it runs."""

    def __init__(self, played: Played, port: int) -> None:
        self.played = played
        self.url = f"http://127.0.0.1:{port}/page/"
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(make_app(self.played), port=self._port, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the server as a crash would: streams end at once."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A fleet half a minute after its start, with ten views per second, each one second of the fleet's time apart."""
    made: Callable[[], Played] = getattr(request, "param", lambda: Played(grown(Fleet(groups=16), 30), seconds=0.1))
    site = Site(made(), reserved_port())
    site.start()
    stop = play_in_thread(site.played)
    yield site
    stop()
    site.stop()


@pytest.fixture
def page(chromium: "Browser", site: Site) -> "Iterator[Page]":
    """A logged-in viewer's page, in a narrow or wide window as the test sets it. Script errors fail the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": COOKIE, "value": TOKEN, "url": site.url}])
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if _is_wrong(said) else None)
    yield page
    context.close()
    assert errors == []


def _is_wrong(said: Any) -> bool:
    """Whether a console message is an error: violations of the policy are, refused requests are part of the tests."""
    return said.type == "error" and "Failed to load resource" not in said.text
