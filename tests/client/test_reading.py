"""Reading results: each once over broken connections and restarts of the trainer, whole groups, refilling."""

import json
import math
import ssl
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from openseer_client import (
    BatchSpec,
    Checkpoint,
    ConflictError,
    FinishedGroup,
    Group,
    ResultItem,
    SubmissionLostError,
    Target,
    reading,
)
from openseer_client.client import BatchHandle
from openseer_client.groups import Collector
from openseer_client.settings import trusted
from openseer_core.errors import InputError
from tests.client.remote import (
    Handler,
    Remote,
    RemoteBatch,
    answers,
    end,
    lost_answer,
    no_fault,
    refused_connection,
    result,
    torn_answer,
)


def finished(remote: Remote, groups: int = 4, size: int = 2) -> BatchHandle:
    """A complete batch whose groups' results are interleaved."""
    handle = remote.client().open_batch(key="run/1")
    batch = remote.batches[handle.id]
    for index in range(size):
        batch.add(*(result(f"g{number}", index) for number in range(groups)))
    batch.add(*(end(f"g{number}", size) for number in range(groups)))
    batch.sealed = batch.complete = True
    return handle


def test_results_are_read_once_each_over_broken_connections() -> None:
    remote = Remote()
    handle = finished(remote)
    remote.faults.extend([torn_answer, refused_connection, answers(503), torn_answer, lost_answer])
    items = list(handle.results())
    assert [item.cursor for item in items] == list(range(1, 13))
    assert not remote.faults


def test_a_result_sent_twice_is_returned_once() -> None:
    remote = Remote()
    handle = finished(remote, groups=1)
    again = remote.batches[1].items[0]
    remote.batches[1].add(again)
    items = list(handle.results())
    assert [(item.index, item.turn) for item in items if isinstance(item, ResultItem)] == [(0, 0), (1, 0)]


def test_reading_continues_after_a_cursor() -> None:
    handle = finished(Remote())
    assert [item.cursor for item in handle.results(after=10)] == [11, 12]


def test_a_restarted_trainer_continues_from_its_checkpoint(tmp_path: Path) -> None:
    remote = Remote()
    handle = finished(remote)
    reader = handle.results(checkpoint=Checkpoint(tmp_path / "state.json"))
    first = [next(reader).cursor for _ in range(5)]
    del reader
    # A new process: same key, same file. The fifth item was returned, but the next one was not requested.
    again = remote.client().open_batch(key="run/1")
    rest = [item.cursor for item in again.results(checkpoint=Checkpoint(tmp_path / "state.json"))]
    assert (first, rest) == ([1, 2, 3, 4, 5], list(range(5, 13)))
    assert list(again.results(checkpoint=Checkpoint(tmp_path / "state.json"))) == []


def test_results_are_acknowledged_only_after_the_caller_took_them(tmp_path: Path) -> None:
    remote = Remote()
    handle = finished(remote)
    reader = handle.results(checkpoint=Checkpoint(tmp_path / "state.json"), acknowledge=True)
    for _ in range(12):
        next(reader)
        assert remote.batches[1].acknowledged == 0
    assert next(reader, None) is None
    assert remote.batches[1].acknowledged == 12


@pytest.mark.parametrize(("pause", "acknowledged"), [(math.inf, [3, 12]), (0.0, [3, 6, 9, 12])])
def test_pages_in_quick_succession_are_acknowledged_together(
    monkeypatch: pytest.MonkeyPatch, pause: float, acknowledged: list[int]
) -> None:
    remote = Remote()
    handle = finished(remote)
    monkeypatch.setattr(reading, "PAGE", 3)
    monkeypatch.setattr(reading, "ACKNOWLEDGE_SECONDS", pause)
    assert len(list(handle.results(acknowledge=True))) == 12
    sent = [json.loads(request.content)["cursor"] for request in remote.seen if "acknowledge" in request.url.path]
    assert sent == acknowledged


def test_roots_of_trust_are_read_only_for_an_https_address() -> None:
    plain = trusted("http://127.0.0.1:8000")
    assert isinstance(plain, ssl.SSLContext)
    assert (plain.verify_mode, plain.get_ca_certs()) == (ssl.CERT_REQUIRED, [])
    assert trusted("https://gateway:8000") is True


def test_a_lost_answer_to_an_acknowledgement_changes_nothing() -> None:
    remote = Remote()
    handle = finished(remote)
    remote.faults.extend([no_fault, lost_answer])
    assert len(list(handle.results(acknowledge=True))) == 12
    assert remote.paths()[-3:].count("POST /v1/batches/1/acknowledge") == 2


def test_reading_ends_when_an_acknowledgement_completes_the_batch() -> None:
    remote = Remote()
    handle = remote.client().open_batch()
    batch = remote.batches[1]
    batch.add(result("g"), end("g"))
    batch.gone_at = 2
    assert len(list(handle.results(acknowledge=True))) == 2
    # A reader that has not read all results gets the error that the rest is gone.
    with pytest.raises(ConflictError, match="gone"):
        list(handle.results())


def test_a_checkpoint_of_an_earlier_batch_is_reset(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"batch": 99, "cursor": 7, "complete": true}')
    handle = finished(Remote())
    assert len(list(handle.results(checkpoint=Checkpoint(path)))) == 12


def test_a_file_that_is_no_checkpoint_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    handle = finished(Remote())
    with pytest.raises(InputError, match=r"notes\.txt"):
        list(handle.results(checkpoint=Checkpoint(path)))
    assert path.read_text() == "my notes"


def test_groups_are_returned_whole_with_results_by_index() -> None:
    groups = list(finished(Remote()).groups())
    assert [group.name for group in groups] == ["g0", "g1", "g2", "g3"]
    assert all(group.whole and [item.index for item in group.results] == [0, 1] for group in groups)


def test_a_group_with_a_missing_response_is_not_whole() -> None:
    remote = Remote()
    handle = remote.client().open_batch()
    remote.batches[1].add(result("g", 0), result("g", 1, status="aborted"), end("g", 2, aborted=1))
    remote.batches[1].complete = True
    (group,) = handle.groups()
    assert not group.whole
    assert len(group.results) == 2


def test_after_a_restart_open_groups_are_read_again_and_none_twice(tmp_path: Path) -> None:
    remote = Remote()
    handle = finished(remote)
    reader = handle.groups(checkpoint=Checkpoint(tmp_path / "state.json"), acknowledge=True)
    taken = [next(reader).name for _ in range(3)]
    del reader
    again = remote.client().open_batch(key="run/1")
    rest = list(again.groups(checkpoint=Checkpoint(tmp_path / "state.json"), acknowledge=True))
    assert taken == ["g0", "g1", "g2"]
    assert [group.name for group in rest] == ["g2", "g3"]
    assert all(group.whole for group in rest)
    assert remote.batches[1].acknowledged == 12
    assert list(again.groups(checkpoint=Checkpoint(tmp_path / "state.json"))) == []


def test_results_of_open_groups_are_not_acknowledged(tmp_path: Path) -> None:
    remote = Remote()
    handle = remote.client().open_batch()
    batch = remote.batches[1]
    batch.add(result("a"), end("a"), result("b", 0), result("c"), end("c"))
    reader = handle.groups(checkpoint=Checkpoint(tmp_path / "state.json"), acknowledge=True)
    assert [next(reader).name, next(reader).name] == ["a", "c"]
    batch.add(result("b", 1), end("b", 2))
    batch.complete = True
    assert next(reader).name == "b"
    assert batch.acknowledged == 2


def test_an_environment_continues_responses_until_they_are_full() -> None:
    remote = Remote()
    handle = remote.client().open_batch()
    batch = remote.batches[1]
    handle.submit([Group(id="g", prompt="x")])
    batch.add(result("g", 0), result("g", 1), end("g", 2))

    def environment(item: ResultItem) -> list[int] | None:
        return [7, 8] if item.index == 0 else None

    (group,) = handle.groups(environment=environment, seal_after=1)
    assert batch.sealed
    assert [(item.index, item.turn) for item in group.results] == [(0, 2), (1, 0)]
    # The last continuation was refused for want of room, so that turn was the last.
    assert remote.continued == [("g", 0, 0), ("g", 0, 1), ("g", 0, 2)]


def test_a_batch_is_filled_until_enough_groups_are_valid() -> None:
    remote = Remote()

    def generate(batch: RemoteBatch, new: list[Group]) -> None:
        for group in new:
            batch.add(result(group.id), end(group.id))

    remote.on_upload = generate
    drawn = count()

    def supply() -> Iterator[Group]:
        for number in drawn:
            yield Group(id=f"g{number}", prompt_token_ids=[number])

    handle = remote.client().open_batch(BatchSpec(target=Target(groups=4, count="valid")))
    good = list(handle.fill(supply(), lambda group: int(group.name[1:]) % 3 != 0))
    assert [group.name for group in good] == ["g1", "g2", "g4", "g5"]
    assert remote.batches[1].sealed
    assert len(remote.batches[1].verdicts) == 6
    # No more prompts were drawn than wanted.
    assert next(drawn) == 6


def test_an_exhausted_supply_of_prompts_seals_the_batch() -> None:
    remote = Remote()
    remote.on_upload = lambda batch, new: batch.add(*(item for g in new for item in (result(g.id), end(g.id))))
    handle = remote.client().open_batch(BatchSpec(target=Target(groups=9, count="valid")))

    def judge(group: FinishedGroup) -> bool:
        return group.name == "b"

    supply = [Group(id=name, prompt="x") for name in "abc"]
    assert [group.name for group in handle.fill(supply, judge)] == ["b"]
    assert remote.batches[1].sealed


def test_results_that_a_store_lost_and_reissued_are_returned_once() -> None:
    remote = Remote()
    handle = finished(remote, groups=2)
    batch = remote.batches[handle.id]
    batch.add(result("g0", 0), result("g0", 1), end("g0", 2), end("g1", 2))
    assert [group.name for group in handle.groups()] == ["g0", "g1"]
    assert [item.cursor for item in handle.results()] == [1, 2, 3, 4, 5, 6]


def test_a_turn_lost_by_the_store_is_answered_again() -> None:
    remote = Remote()
    handle = remote.client().open_batch(key="run/1")
    batch = remote.batches[handle.id]
    batch.add(result("g0"))
    asked: list[tuple[int, int]] = []

    def environment(item: ResultItem) -> list[int] | None:
        asked.append((item.turn, item.cursor))
        if len(asked) == 1:
            batch.add(result("g0"))  # the store has lost the turn that begins now
        elif item.turn == 0:
            batch.add(result("g0", turn=1), end("g0"))
            batch.sealed = batch.complete = True
        return [9] if item.turn == 0 else None

    [group] = handle.groups(environment=environment)
    assert asked == [(0, 1), (0, 2), (1, 3)]
    assert [item.turn for item in group.results] == [1]


def test_a_turn_sent_again_under_its_cursor_is_ignored() -> None:
    collector = Collector()
    item = result("g0", cursor=4)
    assert collector.add(item)
    collector.goes_on(item)
    assert not collector.add(item)
    assert collector.add(result("g0", cursor=7))


def test_groups_taken_before_a_restart_are_not_returned_again(tmp_path: Path) -> None:
    remote = Remote()
    handle = remote.client().open_batch(key="run/1")
    batch = remote.batches[handle.id]
    batch.add(result("g0"), end("g0"), result("g1"), end("g1"))
    reader = handle.groups(checkpoint=Checkpoint(tmp_path / "state.json"), acknowledge=True)
    assert [next(reader).name for _ in range(2)] == ["g0", "g1"]
    batch.add(result("g2"), end("g2"))
    assert next(reader).name == "g2"  # the page with g0 and g1 is noted now
    del reader
    batch.add(result("g1"), end("g1"), result("g2"), end("g2"), result("g0"), end("g0"))
    batch.sealed = batch.complete = True
    again = remote.client().open_batch(key="run/1").groups(checkpoint=Checkpoint(tmp_path / "state.json"))
    assert [group.name for group in again] == ["g2"]


def test_a_checkpoint_keeps_group_names_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote()
    clock = iter(range(100, 1000, 30))
    monkeypatch.setattr(reading.time, "time", lambda: float(next(clock)))
    handle = remote.client().open_batch(key="run/1")
    batch = remote.batches[handle.id]
    batch.add(*(item for number in range(5) for item in (result(f"g{number}"), end(f"g{number}"))), result("late"))
    checkpoint = Checkpoint(tmp_path / "state.json")
    reader = handle.groups(checkpoint=checkpoint)
    assert [next(reader).name for _ in range(5)] == [f"g{number}" for number in range(5)]
    batch.add(end("late"))
    assert next(reader).name == "late"
    assert list(checkpoint.position(handle.id).recent) == ["g2", "g3", "g4"]


def test_a_seal_lost_with_the_api_is_sent_again() -> None:
    remote = Remote()
    handle = remote.client().open_batch()
    batch = remote.batches[handle.id]
    handle.submit([Group(id="a", prompt="x")])
    handle.seal()
    batch.add(result("a"), end("a"))
    batch.sealed = batch.complete = False

    def sealed_again(request: httpx.Request, handler: Handler) -> httpx.Response:
        answer = handler(request)
        batch.complete = batch.sealed
        return answer

    reader = handle.groups()
    assert next(reader).name == "a"
    remote.faults.extend([no_fault] * 3 + [sealed_again])
    assert list(reader) == []
    assert batch.sealed


def test_groups_lost_with_the_api_raise_an_error() -> None:
    remote = Remote()
    handle = remote.client().open_batch()
    batch = remote.batches[handle.id]
    handle.submit([Group(id="a", prompt="x"), Group(id="b", prompt="x")])
    handle.seal()
    batch.add(result("a"), end("a"))
    batch.sealed = False
    del batch.groups["b"]
    reader = handle.groups()
    assert next(reader).name == "a"
    with pytest.raises(SubmissionLostError, match="found 1 of the 2 groups that were submitted"):
        next(reader)
    assert not batch.sealed


def test_a_restarted_trainer_gets_no_group_reissued_by_the_store_twice(tmp_path: Path) -> None:
    remote = Remote()
    handle = remote.client().open_batch(key="run/1")
    batch = remote.batches[handle.id]
    batch.add(result("late", 0), result("g0", 0), result("g0", 1), end("g0", 2))
    reader = handle.groups(checkpoint=Checkpoint(tmp_path / "state.json"))
    assert next(reader).name == "g0"
    batch.add(result("g1", 0), result("g1", 1), end("g1", 2))
    assert next(reader).name == "g1"  # g0 counts as taken now
    del reader
    batch.add(result("g0", 0), result("g0", 1), end("g0", 2), result("late", 1), end("late", 2))
    batch.sealed = batch.complete = True
    again = remote.client().open_batch(key="run/1").groups(checkpoint=Checkpoint(tmp_path / "state.json"))
    assert [group.name for group in again] == ["g1", "late"]
