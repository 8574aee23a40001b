"""A worker as a process, as a pod runs it: probes, signals, exit codes, a store that starts late, gangs of ranks."""

# pyright: reportUnknownMemberType=false
import asyncio
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.placement import Lanes
from openseer_core.queue.policy import policy
from openseer_core.tokens import pack_tokens
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis, find_server
from openseer_store.port import Store
from openseer_worker.vllm.environment import is_cpu_build

WAIT_SECONDS = 120.0
PORTS = range(20_000, 30_000)
"""Outside of those that the kernel gives to whoever asks for any."""
SIZE = 4

pytestmark = pytest.mark.redis


def free_ports() -> int:
    """The first of two neighbouring free ports outside of the ephemeral range."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("", port))
            two.bind(("", port + 1))
            return port


async def until(
    what: Callable[[], Coroutine[Any, Any, bool]] | Callable[[], bool], seconds: float = WAIT_SECONDS
) -> None:
    """Waits until `what` holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        holds = what()
        if holds if isinstance(holds, bool) else await holds:
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s")


class Rank:
    """One process of a worker."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, message: Path) -> None:
        self.process = process
        self.log = log
        self.message = message

    def status(self, path: str) -> int:
        """The status of the web server's answer; 0: no server."""
        return self.get(path)[0]

    def get(self, path: str) -> tuple[int, str]:
        port = re.search(r"probes and metrics on port (\d+)", self.log.read_text())
        if port is None:
            return 0, ""
        connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=WAIT_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):  # an ending process may send an incomplete answer
            return 0, ""
        finally:
            connection.close()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.status("/readyz") == 200

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Waits for the end and returns the exit code."""
        return self.process.wait(WAIT_SECONDS)


class Bench:
    """A job and its processes. A response of 4000 tokens takes minutes, so that it still runs when a test reads the
    state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranks: list[Rank] = []
        self.job: RolloutJob

    def write(self, nodes: int = 1, model: dict[str, Any] | None = None, **spec: Any) -> None:
        scripted = {"stepSeconds": 0.05, "slots": 8}
        document: dict[str, Any] = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "pod"},
            "spec": {
                "model": model or {"path": "none", "engine": "scripted", "scripted": scripted},
                "prompts": {"path": "none"},
                "groupSize": SIZE,
                "sampling": {"maxTokens": 4000, "forceLengths": True},
                "rollout": {"policy": "fifo"},
                "workers": {"parallelism": {"tensor": nodes, "nodes": nodes}},
                **spec,
            },
        }
        self.job = parse_job(document, "test")
        (self.folder / "job.json").write_text(json.dumps(document))

    def start(self, url: str, *options: str, **environment: str) -> Rank:
        name = f"rank{len(self.ranks)}"
        message, log = self.folder / f"{name}.message", self.folder / f"{name}.log"
        words = ("--job", str(self.folder / "job.json"), "--http-port", "0", *options)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "openseer_worker.main", *words],
                stdout=output, stderr=output, start_new_session=True,
                env=os.environ | {"OPENSEER_STORE_URL": url, "OPENSEER_TERMINATION_LOG": str(message)} | environment,
            )  # fmt: skip
        self.ranks.append(Rank(process, log, message))
        return self.ranks[-1]

    def start_gang(self, url: str, nodes: int) -> list[Rank]:
        gang = ("--leader", "localhost", "--gang-port", str(free_ports()))
        return [self.start(url, *gang, "--rank", str(rank)) for rank in range(nodes)]

    async def submit(self, store: Store, lengths: list[int]) -> None:
        """Submits one group whose requests have those lengths."""
        spec = self.job.spec
        chosen, lanes = policy(spec.rollout.policy), Lanes(spec.rollout.policy, 1)
        group, longest, size = GroupId(0, "g0"), spec.sampling.max_tokens, len(lengths)
        priority = chosen.priority(GroupView(group, 0, 0, size, longest, 0.0))
        ranks = tuple(chosen.bias(length) for length in lengths)
        sampling = dump_sampling(spec.sampling)
        await store.submit(
            [GroupSpec(group, "initial", 0, pack_tokens([5, 6, 7]), longest, ranks, lanes.bind(0, size), priority, 0.0,
                       tuple(lengths), sampling)]
        )  # fmt: skip
        await store.seal(0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.write()
    yield bench
    for rank in bench.ranks:
        if rank.process.poll() is None:
            os.killpg(rank.process.pid, signal.SIGKILL)
        rank.process.wait()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedRedis(tmp_path / "redis") as address:
        yield address


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await open_store(url, "pod")
    yield store
    await store.close()


async def test_a_worker_is_ready_except_during_a_drain(bench: Bench, url: str, store: Store) -> None:
    await bench.submit(store, [4000] * SIZE)
    rank = bench.start(url, OPENSEER_NODE_NAME="node-7", OPENSEER_POD_UID="uid-7")
    await until(lambda: rank.status("/healthz") == 200)
    await until(rank.is_ready)

    async def is_busy() -> bool:
        busy = [worker.heartbeat.metrics for worker in await store.workers() if worker.heartbeat.state == "busy"]
        return any(int(metrics["held_tokens"]) > SIZE * 3 for metrics in busy)

    await until(is_busy)
    (worker,) = await store.workers()
    assert worker.heartbeat.metrics["node"] == "node-7"
    assert worker.heartbeat.metrics["pod"] == "uid-7"
    assert worker.heartbeat.weights is not None
    assert worker.heartbeat.weights.passing is not None
    secret = worker.heartbeat.weights.passing.address.rpartition("/weights/")[2]
    assert len(secret) > 40
    # The store has the heartbeat before the worker has its answer and shows the same state.
    await until(lambda: 'openseer_worker_state{state="busy"} 1.0' in rank.get("/metrics")[1])
    metrics = rank.get("/metrics")[1]
    assert "openseer_worker_tokens_total " in metrics
    assert "openseer_worker_slots 8.0" in metrics
    assert "openseer_worker_held_tokens " in metrics
    assert secret not in metrics + rank.log.read_text()
    redis: Any = Redis(unix_socket_path=url.removeprefix("unix://"))
    async with redis:
        # The worker drains until its requests are given back.
        await redis.client_pause(int(WAIT_SECONDS * 1000), all=False)
        rank.stop()
        await until(lambda: rank.status("/readyz") == 503)
        assert rank.status("/healthz") == 200
        await redis.client_unpause()
    assert rank.end() == 0
    assert await store.workers() == []
    progress = await store.progress(0)
    assert (progress.requests, progress.closed, progress.tokens > 0) == (SIZE, 0, True)


async def test_a_worker_waits_for_a_store_that_starts_late(bench: Bench, tmp_path: Path) -> None:
    port = free_ports()
    rank = bench.start(f"redis://localhost:{port}")
    await until(lambda: rank.status("/healthz") == 200)
    time.sleep(2)
    assert rank.status("/readyz") == 503  # a worker is not ready before its store answers
    redis = subprocess.Popen(
        [find_server(), "--port", str(port), "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    try:
        await until(rank.is_ready)
        rank.stop()
        assert rank.end() == 0
    finally:
        redis.kill()
        redis.wait()


async def test_a_worker_stopped_before_its_store_starts_exits_at_once_with_0(bench: Bench) -> None:
    rank = bench.start(f"redis://localhost:{free_ports()}")
    await until(lambda: "waiting for the store" in rank.log.read_text())
    rank.stop()
    assert rank.end() == 0  # it would wait for its store for ten minutes
    assert not rank.message.exists()


async def test_a_failed_workers_termination_message_has_the_reason(bench: Bench, url: str) -> None:
    file = bench.folder / "job.json"
    file.write_text(file.read_text().replace('"slots": 8', '"slots": -1'))
    rank = bench.start(url)
    assert rank.end() == 2
    message = rank.message.read_text()
    assert message.startswith("error: ")
    assert "spec.model.scripted.slots" in message
    missing = bench.start(url, "--job", str(bench.folder / "no.json"))
    assert missing.end() == 2
    assert "no.json" in missing.message.read_text()


async def test_a_sick_engines_worker_reports_it_and_gives_back_its_requests(
    bench: Bench, url: str, store: Store, tmp_path: Path
) -> None:
    await bench.submit(store, [4000] * SIZE)
    rank = bench.start(url, SCRIPTED_ENGINE_SICK=str(tmp_path / "sick"))

    async def is_working() -> bool:
        return (await store.progress(0)).tokens > 0

    await until(is_working)
    redis: Any = Redis(unix_socket_path=url.removeprefix("unix://"))
    async with redis, redis.monitor() as monitor, asyncio.timeout(WAIT_SECONDS):
        # The worker exits at once, so its last heartbeat can rarely be read.
        (tmp_path / "sick").touch()
        command = ""
        while not ("sick" in command and f"{tmp_path / 'sick'} exists" in command):
            command = str(await monitor.next_command())
    assert rank.end() == 8
    assert (await store.progress(0)).closed == 0


async def test_a_store_that_refuses_a_command_ends_a_worker_with_its_message(
    bench: Bench, url: str, store: Store
) -> None:
    await bench.submit(store, [4000] * SIZE)
    rank = bench.start(url)
    await until(rank.is_ready)
    redis: Any = Redis(unix_socket_path=url.removeprefix("unix://"))
    async with redis:
        await redis.acl_setuser("default", enabled=True, commands=["-evalsha"])
    assert rank.end() == 4, rank.log.read_text()
    assert "refused a command: " in rank.message.read_text()
    assert "Traceback" not in rank.log.read_text()


# ---- gangs


async def test_a_gang_of_three_ends_as_a_whole_when_its_leader_is_drained(bench: Bench, url: str, store: Store) -> None:
    bench.write(nodes=3)
    await bench.submit(store, [20] * SIZE)
    gang = bench.start_gang(url, 3)

    async def is_complete() -> bool:
        return (await store.progress(0)).complete

    await until(is_complete)
    await until(lambda: all(rank.status("/readyz") == 200 for rank in gang))
    # A follower first reads its GPUs after it is ready.
    await until(lambda: 'state="following"' in gang[1].get("/metrics")[1])
    assert [status.name for status in await store.workers()] == ["worker-0"]
    gang[0].stop()
    assert [rank.end() for rank in gang] == [0, 0, 0]
    assert not any("Traceback" in rank.log.read_text() for rank in gang)


async def test_the_death_of_one_rank_ends_all_ranks(bench: Bench, url: str) -> None:
    bench.write(nodes=3)
    gang = bench.start_gang(url, 3)
    await until(lambda: all(rank.is_ready() for rank in gang))
    gang[2].process.kill()
    assert [gang[0].end(), gang[1].end()] == [7, 7]
    assert "rank 2 of the gang has ended" in gang[0].message.read_text()
    assert "rank 0 of the gang" in gang[1].message.read_text()


async def test_a_terminated_follower_drains_the_whole_worker(bench: Bench, url: str, store: Store) -> None:
    bench.write(nodes=2)
    await bench.submit(store, [4000] * SIZE)
    gang = bench.start_gang(url, 2)

    async def is_working() -> bool:
        return (await store.progress(0)).tokens > 0

    await until(is_working)
    gang[1].stop()
    assert [rank.end() for rank in gang] == [0, 0]
    assert await store.workers() == []


async def test_an_incomplete_gang_exits_with_0_on_sigterm(bench: Bench, url: str) -> None:
    bench.write(nodes=3)
    gang = bench.start_gang(url, 2)
    await until(lambda: "rank 1 connected" in gang[0].log.read_text())
    assert [rank.status("/readyz") for rank in gang] == [503, 503]
    gang[0].stop()
    assert [rank.end() for rank in gang] == [0, 0]


async def test_a_leader_accepts_only_ranks_of_its_own_gang(bench: Bench, url: str) -> None:
    bench.write(nodes=3)
    port = str(free_ports())
    where = ("--leader", "localhost", "--gang-port", port)
    leader, first = (bench.start(url, *where, "--rank", rank) for rank in "01")
    await until(lambda: "rank 1 connected" in leader.log.read_text())
    twice = bench.start(url, *where, "--rank", "1")
    stranger = bench.start(url, *where, "--rank", "2", "--index", "5")
    assert (twice.end(), stranger.end()) == (7, 7)
    assert "rank 1 is connected already" in twice.message.read_text()
    assert "this is default/pod/worker-0, not default/pod/worker-5" in stranger.message.read_text()
    second = bench.start(url, *where, "--rank", "2")
    await until(lambda: all(rank.is_ready() for rank in (leader, first, second)))


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM")
async def test_a_gang_of_two_runs_one_real_engine_over_both(bench: Bench, url: str, store: Store, folder: Path) -> None:
    model = {"path": str(folder), "dtype": "float32", "engineArgs": {"max_num_seqs": 4}}
    bench.write(workers={"parallelism": {"tensor": 2, "nodes": 2}}, model=model)
    await bench.submit(store, [40, 30, 20, 10])
    gang = bench.start_gang(url, 2)

    async def is_complete() -> bool:
        assert all(rank.process.poll() is None for rank in gang), [rank.log.read_text()[-3000:] for rank in gang]
        return (await store.progress(0)).complete

    await until(is_complete, 480)
    progress = await store.progress(0)
    assert (progress.ok, progress.tokens) == (4, 100)
    gang[0].stop()
    assert [rank.end() for rank in gang] == [0, 0]
