"""One call: retries, time limits, tokens, and errors with remedies."""

import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, cast

import pytest

from openseer_client import (
    BatchSpec,
    BusyError,
    Client,
    ConflictError,
    ForbiddenError,
    Group,
    Limits,
    NotFoundError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
)
from openseer_client.http.retry import Trouble, delay, retry_after
from openseer_core.errors import InputError
from tests.client.remote import QUICK, URL, Remote, answers, lost_answer, problem, refused_connection, torn_answer


def test_a_call_is_made_again_while_the_api_restarts() -> None:
    remote = Remote()
    remote.faults.extend([refused_connection, answers(503), answers(502), answers(504), torn_answer, lost_answer])
    with remote.client() as client:
        assert client.open_batch(key="run/1").id == 1
    assert len(remote.seen) == 7
    # Two of these calls had their effect; the key made them one.
    assert len(remote.batches) == 1


def test_retries_of_an_open_without_a_key_open_one_batch() -> None:
    remote = Remote()
    remote.faults.append(lost_answer)
    with remote.client() as client:
        client.open_batch()
        client.open_batch()
    assert len({request.headers["Idempotency-Key"] for request in remote.seen}) == len(remote.batches) == 2


def test_the_error_of_an_unreachable_api_names_its_url_and_the_call() -> None:
    limits = Limits(unreachable=0.02, first_delay=0.001, longest_delay=0.005)
    client = Client("http://127.0.0.1:9", token="secret-token", limits=limits)
    with client, pytest.raises(UnavailableError, match=r"GET /v1/job: 503 (?s:.)*127\.0\.0\.1:9") as caught:
        client.job()
    assert caught.value.retryable
    assert "OPENSEER_URL" in str(caught.value)
    assert "secret-token" not in str(caught.value)


def test_a_busy_apis_retry_after_is_respected() -> None:
    remote = Remote()
    remote.faults.append(answers(429, Retry_After="0.2"))
    batch = remote.client().open_batch()
    assert batch.id == 1
    assert len(remote.seen) == 2
    asked = delay(Limits(), Trouble.BUSY, failures=1, elapsed=0.0, asked=7.0, draw=0.0)
    assert asked == 7.0


def test_only_the_refused_piece_of_an_upload_is_sent_again() -> None:
    remote = Remote()
    with remote.client() as client:
        batch = client.open_batch()
        remote.faults.append(answers(429, Retry_After="0"))
        receipt = batch.submit(Group(id=f"g{number}", prompt_token_ids=[1]) for number in range(1200))
    assert (receipt.accepted, receipt.present) == (1200, 0)
    assert remote.paths().count("POST /v1/batches/1/groups") == 4


def test_retries_of_a_busy_api_end_at_the_time_limit() -> None:
    remote = Remote()
    remote.faults.extend([answers(429)] * 1000)
    client = Client(URL, limits=Limits(busy=0.05, first_delay=0.001, longest_delay=0.01), transport=remote.transport())
    with pytest.raises(BusyError, match="Too much is queued"):
        client.job()


def test_delays_grow_to_a_limit_and_never_exceed_the_remaining_time() -> None:
    limits = Limits(unreachable=100.0, first_delay=1.0, longest_delay=8.0)
    grown = [
        delay(limits, Trouble.UNREACHABLE, failures=count, elapsed=0.0, asked=None, draw=1.0) for count in (1, 2, 3, 9)
    ]
    assert grown == [1.0, 2.0, 4.0, 8.0]
    assert delay(limits, Trouble.UNREACHABLE, failures=5000, elapsed=99.0, asked=None, draw=1.0) == 1.0
    assert delay(limits, Trouble.UNREACHABLE, failures=2, elapsed=100.0, asked=None, draw=0.0) is None
    assert retry_after("Wed, 21 Oct 2026 07:28:00 GMT") is None


def test_a_piece_that_is_too_large_for_the_api_is_divided() -> None:
    remote = Remote()
    remote.most_groups = 100
    with remote.client() as client:
        batch = client.open_batch()
        receipt = batch.submit([Group(id=f"g{number}", prompt="x") for number in range(512)])
        assert receipt.accepted == 512
        remote.most_groups = 0
        with pytest.raises(TooLargeError, match="At most 0 groups"):
            batch.submit([Group(id="last", prompt="x")])


def test_an_upload_with_a_lost_answer_is_not_queued_twice() -> None:
    remote = Remote()
    with remote.client() as client:
        batch = client.open_batch()
        remote.faults.append(lost_answer)
        receipt = batch.submit([Group(id="a", prompt="x"), Group(id="b", prompt="y")])
    assert (receipt.accepted, receipt.present) == (0, 2)
    assert list(remote.batches[1].groups) == ["a", "b"]


def test_a_rotated_token_is_read_from_its_file_again(tmp_path: Path) -> None:
    remote = Remote("first")
    file = tmp_path / "token"
    file.write_text("first\n")
    with Client(URL, token_file=file, limits=QUICK, transport=remote.transport()) as client:
        batch = client.open_batch()
        remote.token = "second"
        file.write_text("second\n")
        assert batch.status().id == 1
        # Same size, same time: only the refusal shows that the token changed.
        times = file.stat()
        remote.token = "third!"
        file.write_text("third!\n")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert batch.status().id == 1
        remote.token = "another"
        with pytest.raises(UnauthorizedError, match="OPENSEER_TOKEN_FILE"):
            batch.status()


def test_url_and_token_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote("secret")
    monkeypatch.setenv("OPENSEER_URL", URL + "/")
    monkeypatch.setenv("OPENSEER_TOKEN", "secret")
    with Client(transport=remote.transport()) as client:
        client.open_batch()
    monkeypatch.delenv("OPENSEER_URL")
    with pytest.raises(InputError, match="OPENSEER_URL"):
        Client()
    with pytest.raises(InputError, match="found 'localhost:8000'"):
        Client("localhost:8000")


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    client = Client(URL, token_file=tmp_path / "none", transport=Remote().transport())
    with client, pytest.raises(InputError, match=r"none cannot be read: No such file.*OPENSEER_TOKEN_FILE"):
        client.job()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, ForbiddenError), (404, NotFoundError), (409, ConflictError), (413, TooLargeError)],
)
def test_a_refusal_is_not_repeated_and_carries_the_problem(status: int, kind: type[Exception]) -> None:
    remote = Remote()
    remote.faults.append(lambda _request, _answer: problem(status, "the reason"))
    with remote.client() as client, pytest.raises(kind, match="the reason") as caught:
        client.open_batch(BatchSpec(group_size=4))
    assert len(remote.seen) == 1
    assert str(caught.value).startswith(f"POST /v1/batches: {status} No\nthe reason")


def test_unknown_fields_of_a_newer_api_are_ignored() -> None:
    remote = Remote()
    batch = remote.client().open_batch()
    known = remote.batches[1].answer(1).model_dump(mode="json")
    remote.answers["GET batches/1"] = deque([known | {"news": 1}])
    assert batch.status().id == 1


def test_deleting_a_deleted_batch_raises_no_error() -> None:
    with Remote().client() as client:
        client.batch(7).forget()
        with pytest.raises(NotFoundError, match="no batch 7"):
            client.batch(7).status()


def test_importing_the_client_loads_nothing_heavy() -> None:
    heavy = "torch numpy fastapi transformers redis trl kubernetes"
    check = f"import sys, openseer_client; print([name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("group", "place"),
    [
        (Group(id="a", prompt="a", metadata={"x": {"y": ["\ud83d"]}}), "group a.metadata.x.y[0]"),
        (Group(id="a", prompt="a", metadata={"\ud83d": 1}), "the key group a.metadata.'\\ud83d'"),
        (Group(id="a", messages=[{"role": "user", "content": "\ud83d"}]), "group a.messages[0].content"),
    ],
)
def test_a_lone_surrogate_is_refused_before_the_first_call(group: Group, place: str) -> None:
    remote = Remote()
    with remote.client() as client:
        batch = client.open_batch()
        sent = len(remote.seen)
        with pytest.raises(InputError) as caught:
            batch.submit([group])
    assert str(caught.value) == f"{place}: not valid text (half of a character, \\ud83d)"
    assert len(remote.seen) == sent


def test_an_invalid_group_or_key_is_named_before_the_first_call() -> None:
    remote, group = Remote(), Group(id="a", prompt_token_ids=[1])
    with remote.client() as client:
        batch = client.open_batch()
        sent = len(remote.seen)
        for given, found in ((group, "one Group"), ([{"id": "a"}], "a dict"), ({"id": "a"}, "one dict")):
            with pytest.raises(TypeError, match=f"groups: found {found}, allowed: "):
                batch.submit(cast("Any", given))
        with pytest.raises(InputError, match="key: found an empty one, allowed: "):
            client.open_batch(key="")
        assert len(remote.seen) == sent
