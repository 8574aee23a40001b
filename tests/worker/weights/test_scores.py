"""A token without a finite score fails only its response; the scores recorded before it are finite."""

import asyncio
import math
from pathlib import Path

import pytest

from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import count_items, pack_logprobs, pack_tokens, unpack_logprobs
from openseer_core.weights.publish import Canary
from openseer_worker.engine import EngineOutput
from tests.worker.fleet import Fleet, play
from tests.worker.test_running import running_requests

BAD = [math.nan, math.inf, -math.inf]
TOKENS = [3, 1, 4, 1, 5]


def output(key: str, *logprobs: float, unscored: int | None = None) -> EngineOutput:
    scores = b"" if unscored is not None else pack_logprobs(logprobs)
    return EngineOutput(key, pack_tokens([7] * len(logprobs)), scores, unscored=unscored)


@pytest.mark.parametrize("bad", BAD)
def test_a_response_ends_before_the_first_token_without_a_finite_score(bad: float) -> None:
    running, key = running_requests()
    running.take(output(key, -0.5, -0.25), "v7")
    assert running.newly_failed() == []
    running.take(output(key, -1.0, bad, -2.0, bad), "v7")
    assert running.newly_failed() == [key]
    (response,) = running.ended()
    assert (response.finish, response.generated) == (FinishReason.INFRA_FAILED, 3)
    assert unpack_logprobs(response.delta().logprobs) == [-0.5, -0.25, -1.0]
    assert response.stop_reason.startswith(
        f"scores are not finite: token 3: found log-probability {bad}, allowed: a finite number; weights v7 are damaged"
    )
    # Later outputs of the engine for this request are ignored.
    running.take(EngineOutput(key, pack_tokens([1]), pack_logprobs([-1.0]), FinishReason.LENGTH), "v7")
    assert running.newly_failed() == []
    assert (response.finish, response.generated) == (FinishReason.INFRA_FAILED, 3)


def test_nan_logits_fail_a_response_that_records_no_log_probabilities() -> None:
    running, key = running_requests()
    first, second = output(key, 0, 0), output(key, 0, 0, 0, unscored=1)
    first.logprobs = b""
    first.add(second)
    running.take(first, "v7")
    assert running.newly_failed() == [key]
    (response,) = running.ended()
    assert response.generated == 3
    assert response.stop_reason.startswith("scores are not finite: token 3: found NaN in its logits, allowed: ")


def test_a_worker_fails_that_response_alone_and_its_engine_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openseer_worker.scripted import engine  # noqa: PLC0415 - what is replaced

    scripted = engine.scripted_logprobs

    def played(group: str, index: int, begin: int, end: int) -> bytes:
        values = unpack_logprobs(scripted(group, index, begin, end))
        if group == "0/g1" and index == 2 and begin <= 100 < end:
            values[100 - begin] = math.nan
        return pack_logprobs(values)

    monkeypatch.setattr(engine, "scripted_logprobs", played)

    async def story(fleet: Fleet) -> None:
        results = {str(result.request): result for result in await fleet.results(0)}
        failed = results.pop(str(RequestId(GroupId(0, "g1"), 2)))
        assert {result.status for result in results.values()} == {Status.OK}
        assert (failed.status, count_items(failed.tokens), count_items(failed.logprobs)) == (
            Status.INFRA_FAILED,
            100,
            100,
        )
        assert failed.stop_reason.startswith("scores are not finite: token 100: found log-probability nan")
        assert "weights initial are damaged" in failed.stop_reason
        await asyncio.sleep(1)
        assert {engine.metrics()["running"] for engine in fleet.engines.values()} == {0}

    play(tmp_path, story)


def test_a_canary_with_non_finite_scores_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openseer_worker.scripted import engine  # noqa: PLC0415 - what is replaced

    def broken(content: str, tokens: list[int]) -> list[float]:
        del content
        return [-1.0, -1.0, math.nan, -1.0][: len(tokens) - 1]

    monkeypatch.setattr(engine, "scripted_scores", broken)

    async def story(fleet: Fleet) -> None:
        await fleet.publish(mode="keep", canary=Canary(token_ids=TOKENS, logprobs=[-1.0] * 4))
        transaction = await fleet.until("failed")
        assert "the canary was scored: token 3: found log-probability nan" in transaction.message
        assert "v1" not in fleet.store.claimed

    play(tmp_path, story)
