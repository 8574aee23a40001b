"""Failures between a client and Redis, and the messages that they cause."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from os import kill
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError, StoreError, StoreLoadingError, StoreUnavailableError
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.budgets import STEP_GROUPS
from openseer_core.queue.messages import WriteOutcome
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.keys import prefix
from openseer_store.redis_link import RedisLink
from openseer_store.redis_store import FORGET_SECONDS
from tests.store.builders import ANN, BOB, delta, extend, finish, group, query, results, tokens

INFO = b"# Server\r\nredis_version:%s\r\nrun_id:abc\r\n"
OK = b"+OK\r\n"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
GREETING = {b"INFO": b"$%d\r\n%s\r\n" % (len(INFO % b"6.2.0"), INFO % b"6.2.0"), b"EVAL": b"$1\r\n1\r\n"}


@contextlib.asynccontextmanager
async def fake_server(answers: dict[bytes, bytes]) -> AsyncGenerator[str]:
    """A server with one fixed answer per command, OK by default."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while count := (await reader.readline())[1:].strip():
            words: list[bytes] = []
            for _ in range(int(count)):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2])
            writer.write(answers.get(words[0].upper(), OK))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


async def test_a_server_that_is_too_old_is_refused_at_once() -> None:
    info = INFO % b"5.0.3"
    async with fake_server({b"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}) as url:
        with pytest.raises(
            StoreError, match=r"^redis at redis://127\.0\.0\.1:\d+/0 is version 5\.0\.3; openseer needs"
        ):
            await open_store(url, "job")


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (LOADING, "still loads its data"),
        (b"-MISCONF Redis is configured to save RDB snapshots, but it is not able to\r\n", "free some space"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "raise its maxmemory"),
        (b"-READONLY You can't write against a read only replica.\r\n", "URL of the primary"),
        (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n", "primary is down"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "cluster is down"),
        (b"-ERR Error running script: @user_script:1: -MISCONF Errors writing to the AOF file\r\n", "free some space"),
    ],
)
async def test_a_temporary_refusal_is_retried_and_then_explained(answer: bytes, advice: str) -> None:
    async with fake_server({**GREETING, b"PING": answer}) as url:
        with pytest.raises(StoreUnavailableError, match=advice):
            await open_store(url, "job", retry_seconds=0.2)


async def test_a_call_waits_longer_for_a_server_that_loads_its_data() -> None:
    """It waits beyond its own limit; without a time for the load it fails at once."""
    answers = {**GREETING, b"PING": LOADING}
    async with fake_server(answers) as url:
        with pytest.raises(StoreLoadingError, match="it still loads its data"):
            await open_store(url, "job", retry_seconds=0.2, loading_seconds=0.0)
        opening = asyncio.create_task(open_store(url, "job", retry_seconds=0.2, loading_seconds=600.0))
        await asyncio.sleep(1.5)
        assert not opening.done()
        answers[b"PING"] = b"+PONG\r\n"
        await (await opening).close()


async def test_a_wrong_password_is_not_retried_and_never_shown() -> None:
    refusal = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    async with fake_server({b"AUTH": refusal}) as url:
        with pytest.raises(StoreError, match="refused the user name or password") as caught:
            await open_store(url, "job")
        assert not isinstance(caught.value, StoreUnavailableError)
        assert "secret" not in str(caught.value)


async def test_a_missing_server_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailableError, match=r"^redis at redis://127\.0\.0\.1:1/3 gave no answer") as caught:
        await open_store("redis://user:secret@127.0.0.1:1/3", "job", retry_seconds=0.2)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("http://user:secret@host", "secret", "redis://host:port", "redis://host?db=x", "redis://[x/0"),
        *("redis://host?secret=1", "redis://host?connection_class=a", "rediss://host?ssl_cert_reqs=a"),
    ],
)
async def test_a_url_of_another_kind_is_an_input_error(url: str) -> None:
    with pytest.raises(InputError, match="store URL"):
        await open_store(url, "job", retry_seconds=0.2)


@pytest.mark.parametrize(
    "url",
    [
        *(f"redis://default:S3cret{mark}x@host:6379/0" for mark in "/#?[]"),
        *("redis://:S3cret#x@host", "redis://S3cret/x@host", "redis://:6379/S3cret@host:6379/0"),
        *("redis://:6379?S3cret=1@host", "rediss://host?ssl_cert_reqs=S3cret", "redis://host?db=S3cret"),
        *("unix://:1/S3cret@/socket", "http://S3cret@host", "S3cret"),
    ],
)
async def test_no_error_shows_a_password_with_reserved_characters(url: str) -> None:
    for dial in (None, _anywhere):
        with pytest.raises(InputError, match="store URL: ") as caught:
            await open_store(url, "job", retry_seconds=0.2, dial=dial)
        assert "s3cret" not in str(caught.value).lower()
        assert caught.value.__cause__ is None


async def _anywhere(_host: str, _port: int) -> tuple[str, ...]:
    raise AssertionError


@pytest.mark.redis
async def test_scripts_that_the_server_lost_are_loaded_again(redis_url: str, job: str) -> None:
    store = await open_store(redis_url, job)
    await store.submit([group("a", 1)])
    link = RedisLink(redis_url, "{other}")
    await link.command("SCRIPT", "FLUSH")
    assert len(await store.claim(ANN, query())) == 1
    await link.close()
    await store.close()


@pytest.mark.redis
async def test_a_call_that_was_cancelled_leaves_no_answer_for_the_next_one(redis_url: str, job: str) -> None:
    store = await open_store(redis_url, job)
    await store.submit([group("a", 1)])
    for _ in range(20):
        call = asyncio.create_task(store.progress(0))
        await asyncio.sleep(0)
        call.cancel()
        assert await store.groups(7, 0, 1) == []
        with pytest.raises(asyncio.CancelledError):
            await call
    await store.close()


@pytest.mark.redis
async def test_an_interrupted_change_of_version_is_found_and_repeated(
    redis_url: str, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, whole = await open_store(redis_url, job), RedisLink.run
    record, _ = await store.open_batch(OpenBatch("v1", "{}"))
    await store.submit([group(f"g{number}", 1, batch=record.number) for number in range(2 * STEP_GROUPS + 1)])
    pieces = 0

    async def dies(link: RedisLink, verb: str, *arguments: Any, **more: Any) -> Any:
        nonlocal pieces
        pieces += verb == "change_version"
        if pieces > 1:
            raise StoreUnavailableError("the caller ends here")
        return await whole(link, verb, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(RedisLink, "run", dies)
        with pytest.raises(StoreUnavailableError):
            await store.change_version(record.number, "v2")
    assert [found.version for found in await store.batches()] == ["v1"]
    await store.submit([group("late", 1, batch=record.number)])
    await store.change_version(record.number, "v2")
    assert [found.version for found in await store.batches()] == ["v2"]
    assert (await store.load()).waiting == {"v2": 2 * STEP_GROUPS + 2}
    await store.close()


@pytest.mark.redis
async def test_no_counter_stays_of_a_version_or_a_worker_without_work(redis_url: str, job: str) -> None:
    store = await open_store(redis_url, job)
    for version in ("v1", "v2"):
        await store.submit([group(f"for-{version}", 2, version=version)])
        await store.complete(ANN, [finish(claim, 1) for claim in await store.claim(ANN, query(version=version))])
    await store.end(0)
    link = RedisLink(redis_url, prefix("default", job))
    assert await link.command("HGETALL", prefix("default", job) + ":counters") == []
    await link.close()
    await store.close()


@pytest.mark.redis
async def test_jobs_and_namespaces_share_a_server_without_seeing_each_other(redis_url: str, job: str) -> None:
    one, other = await open_store(redis_url, job, "a"), await open_store(redis_url, job, "b")
    await one.submit([group("a", 1)])
    assert (await other.progress(0)).requests == 0
    await other.purge()
    assert (await one.progress(0)).requests == 1
    await one.close()
    await other.close()


@pytest.mark.redis
async def test_a_forgotten_job_leaves_one_key_that_expires_unless_reused(redis_url: str, job: str) -> None:
    store = await open_store(redis_url, job)
    await store.submit([group("a", 1)])
    link = RedisLink(redis_url, "{other}")
    await store.purge(forget=True)
    key = f"{{openseer:default/{job}}}:store"
    assert 0 < int(await link.command("TTL", key)) <= FORGET_SECONDS
    again = await open_store(redis_url, job)
    assert int(await link.command("TTL", key)) == -1
    await link.close()
    await store.close()
    await again.close()


@pytest.mark.redis
async def test_a_restarted_server_issues_no_fence_twice(tmp_path: Path) -> None:
    """The server loses all data but its epoch, and the fences before and after still differ."""
    fences: list[int] = []
    for _ in range(2):
        async with EmbeddedRedis(tmp_path) as url:
            store = await open_store(url, "job")
            await store.submit([group("a", 1)])
            [claim] = await store.claim(ANN, query())
            fences.append(claim.fence)
            link = RedisLink(url, "{other}")
            keys = await link.command("KEYS", "{openseer:default/job}:*")
            await link.command("DEL", *(key for key in keys if not key.endswith(b":store")))
            await link.close()
            await store.close()
    assert fences[1] > fences[0]


@pytest.mark.redis
async def test_a_server_killed_during_a_run_loses_no_accepted_write(tmp_path: Path) -> None:
    socket = ""
    first = EmbeddedRedis(tmp_path / "store", "always")
    async with first as url:
        socket = url.removeprefix("unix://")
        link = tmp_path / "s"
        link.symlink_to(Path(socket).parent)
        stable = f"unix://{link}/redis.sock"
        store = await open_store(stable, "job")
        await store.submit([group("a", 4)])
        claims = await store.claim(ANN, query())
        await store.complete(ANN, [finish(claims[0], 3)])
        await extend(store, ANN, [delta(claims[1], 2)])
        assert first.pid is not None
        kill(first.pid, signal.SIGKILL)
        waiting = asyncio.create_task(extend(store, ANN, [delta(claims[1], 5)]))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    link.unlink()
    async with EmbeddedRedis(tmp_path / "store", "always") as url:
        link.symlink_to(Path(url.removeprefix("unix://")).parent)
        reply = await waiting
        assert (reply.replies[0].outcome, reply.replies[0].have) == (WriteOutcome.OK, 5)
        await store.complete(ANN, [finish(claim, 1) for claim in claims[2:]])
        await store.give_back(ANN, [delta(claims[1], 5, offset=0)])
        [again] = await store.claim(BOB, query())
        assert (again.tokens, again.fence > claims[1].fence) == (tokens(0, 5), True)
        assert len(await results(store)) == 3
        await store.close()
