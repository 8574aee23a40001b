"""Logs as text and as JSON: the fields of a line, and the secrets that are hidden in it."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from openseer_core.wire.batches import Group
from openseer_process import logs
from openseer_process.logs import FORM, HIDDEN, about, error_in, note_process, start_log

log = logging.getLogger("openseer_test")
Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a log in a file, of this form and environment; restores the settings of logging afterwards."""
    root, httpx_level = logging.getLogger(), logging.getLogger("httpx").level
    before = list(root.handlers), root.level
    root.handlers = []  # `force` would close them
    monkeypatch.setattr(logs, "_process", {})

    def started(form: str = "json", **environment: str) -> Path:
        start_log(tmp_path / "log", {FORM: form} | environment)
        return tmp_path / "log"

    yield started
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = before
    logging.getLogger("httpx").setLevel(httpx_level)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_of_json_has_time_level_logger_and_message(start: Start) -> None:
    file = start()
    log.warning("a lease of %d s", 3)
    [line] = lines(file)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "openseer_test", "message": "a lease of 3 s"}


def test_a_line_has_the_fields_of_its_process_its_task_and_its_call(start: Start) -> None:
    file = start()
    note_process(job="default/bench", worker="worker-3")
    with about(batch=7, trace_id=""):
        with about(batch=8):
            log.info("inner", extra={"request": "8/g/1"})
        log.info("outer")
    log.info("after")
    process = {"job": "default/bench", "worker": "worker-3"}
    told = [{name: line[name] for name in logs.FIELDS if name in line} for line in lines(file)]
    assert told == [process | {"batch": "8", "request": "8/g/1"}, process | {"batch": "7"}, process]


async def test_concurrent_tasks_have_their_own_fields(start: Start) -> None:
    file = start()

    async def task(batch: int) -> None:
        with about(batch=batch):
            await asyncio.sleep(0)
            log.info("%d", batch)

    await asyncio.gather(*map(task, range(5)))
    assert all(line["batch"] == line["message"] for line in lines(file))


def test_a_traceback_is_a_field_of_its_line(start: Start) -> None:
    file = start()
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")
    [line] = lines(file)
    assert line["message"] == "it failed"
    assert line["exception"].endswith("ValueError: broken")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "text",
    [
        "reading https://user:sesame-open@host/file",
        "redis://:sesame-open@host:6379/0 does not answer",
        "Authorization: Bearer sesame-open",
        "https://bucket/key?X-Amz-Credential=a&X-Amz-Signature=sesame-open&b=1",
        "the variable is sesame-open",
    ],
)
def test_no_secret_is_in_a_line_nor_in_a_traceback(start: Start, form: str, text: str) -> None:
    file = start(form, HF_TOKEN="sesame-open")
    log.info("%s", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("it failed")
    written = file.read_text()
    assert "sesame" not in written
    assert written.count(HIDDEN) >= 2


def test_the_password_of_the_store_and_header_fields_of_traces_are_secrets(start: Start) -> None:
    headers = "authorization=Basic%20sesame-open,x-scope=tenant-17"
    file = start(OPENSEER_STORE_URL="redis://:open-sesame@host", OTEL_EXPORTER_OTLP_HEADERS=headers)
    log.info("authorization: open-sesame, Basic%20sesame-open, tenant-17")
    assert lines(file)[0]["message"] == f"authorization: {HIDDEN}, {HIDDEN}, {HIDDEN}"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PGPASSWORD", "open-sesame", "open-sesame"),
        ("HF_TOKEN", "open-sesame\n", "open-sesame"),
        ("OPENSEER_STORE_URL", "redis://user:open%40sesame@host", "open@sesame"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=open%20sesame", "open sesame"),
    ],
)
def test_a_secret_is_hidden_however_it_is_named_or_encoded(start: Start, name: str, value: str, told: str) -> None:
    file = start(**{name: value})
    log.info("it is %s", told)
    assert lines(file)[0]["message"] == f"it is {HIDDEN}"


@pytest.mark.parametrize("separator", ["\n", "\r", "\u2028"])
def test_a_line_break_in_a_message_begins_no_new_entry(start: Start, separator: str) -> None:
    file = start("text")
    log.info("a name%s2026-11-29 19:00:00,000 ERROR openseer: error: forged", separator)
    first, second = file.read_text().splitlines()
    assert first.endswith(": a name")
    assert second.startswith(" ")
    assert error_in(second) is None


def test_words_and_short_values_stay_as_they_are(start: Start) -> None:
    file = start(MY_TOKEN="the", TOKENIZERS_PARALLELISM="parallelism")
    log.info("the tokens of http://host/v1?key_count=3: parallelism")
    assert lines(file)[0]["message"] == "the tokens of http://host/v1?key_count=3: parallelism"


def test_a_validation_error_does_not_repeat_the_prompt(start: Start) -> None:
    file = start()
    wrong = {"id": "g", "prompt": ["sesame open"]}  # not in the line that the traceback shows
    try:
        Group.model_validate(wrong)
    except ValidationError as error:
        log.warning("not checked before: %s", error, exc_info=error)
    written = file.read_text()
    assert "prompt" in written
    assert "sesame" not in written


def test_an_unknown_form_is_reported_and_text_is_written(start: Start) -> None:
    file = start("xml")
    assert "OPENSEER_LOG: found 'xml', allowed: text, json; text is written" in file.read_text()


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_error_that_ended_a_process_is_found_in_either_form(start: Start, form: str) -> None:
    file = start(form)
    logging.getLogger("openseer").error("error: spec.model: it is not there")
    log.info("error: of nobody's end" if form == "text" else "something")
    assert [error_in(line) for line in file.read_text().splitlines()] == ["spec.model: it is not there", None]
