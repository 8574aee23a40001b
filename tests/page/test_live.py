"""The page of a real `openseer serve` with two vLLM engines, one of which is killed during the test.

With OPENSEER_PAGE_PICTURES=FOLDER it writes its screenshots; docs/images/page is made in this way.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.server import Server
from tests.e2e.workbench import Workbench, workbench_in
from tests.page.browsing import expect
from tests.page.pictures import picture
from tests.repository import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(1200)]

START_SECONDS = 550.0
GROUPS, SIZE, TOKENS = 24, 4, 1500
WITHIN = 30_000
"""Milliseconds for what a busy machine shows late."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    with workbench_in(tmp_path) as bench:
        yield bench


@pytest.fixture
def browser_page(chromium: "Browser") -> "Iterator[Page]":
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    yield context.new_page()
    context.close()


def serving(bench: Workbench) -> Server:
    """A fleet of two small engines whose responses run for minutes."""
    server = Server(bench)
    shutil.copytree(ROOT / "examples/tiny-model/model", bench.folder / "tiny-model")
    server.write(
        model={
            "path": "tiny-model",
            "dtype": "float32",
            "engineArgs": {"max_model_len": 2048, "max_num_seqs": 8, "enforce_eager": True},
        },
        groupSize=SIZE,
        sampling={"maxTokens": TOKENS, "minTokens": 200, "temperature": 1.0, "logprobs": "sampled"},
        rollout={"quantumTokens": 256, "leaseSeconds": 20},
    )
    prompts = [{"id": f"sum-{n}", "prompt": f"Q: {n}+{n + 7}=?\nA:"} for n in range(GROUPS)]
    (bench.folder / "groups.jsonl").write_text("\n".join(map(json.dumps, prompts)) + "\n")
    server.start()
    server.until_ready(seconds=START_SECONDS)
    return server


def test_every_view_shows_a_real_fleet_and_a_killed_worker_at_once(bench: Workbench, browser_page: "Page") -> None:
    server, page = serving(bench), browser_page
    server.call("submit", "groups.jsonl")

    page.goto(f"{server.url}/page/")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible(timeout=WITHIN)
    page.get_by_label("Token").fill("a guess")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("token", timeout=WITHIN)
    page.get_by_label("Token").fill(server.token_file.read_text().strip())
    page.get_by_role("button", name="Log in").click()

    expect(page.get_by_role("article", name="default/bench")).to_contain_text("2/2", timeout=WITHIN)
    picture(page, "jobs")
    page.goto(f"{server.url}/page/#/job/default/bench/batch/1")
    expect(page.get_by_role("slider", name=re.compile("^Groups"))).to_be_visible(timeout=WITHIN)
    expect(page.get_by_role("region", name="Table of running responses")).to_contain_text("sum-", timeout=WITHIN)
    picture(page, "batch")
    page.goto(f"{server.url}/page/#/job/default/bench/batch/1/group/sum-1")
    expect(page.get_by_role("slider", name=re.compile("^Responses over"))).to_be_visible(timeout=WITHIN)
    picture(page, "group")
    page.goto(f"{server.url}/page/#/job/default/bench/batch/1/group/sum-1/0")
    expect(page.get_by_text("worker-").first).to_be_visible(timeout=WITHIN)
    picture(page, "response")
    page.goto(f"{server.url}/page/#/job/default/bench")
    expect(page.locator(".lane")).to_have_count(2, timeout=WITHIN)
    picture(page, "job")

    os.kill(server.workers()[1], signal.SIGKILL)
    # Its successor, a fork of a loaded engine, may be ready before the silence is shown.
    expect(page.locator(".lane").nth(1)).to_contain_text(re.compile("silent|starting"), timeout=WITHIN)
    picture(page, "killed")
