"""The driver as a pod runs it: a process that may be killed, replaced or started before the store."""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from openseer_core.queue.messages import BatchProgress
from openseer_store.embedded import EmbeddedRedis
from tests.driver.pod_bench import REQUESTS, PodBench
from tests.e2e.workbench import Workbench

pytestmark = pytest.mark.redis

FENCED = "another driver has taken over"


@pytest.fixture
def away(tmp_path: Path) -> Iterator[PodBench]:
    """Pods whose store is not up yet; `store.sock` is its future address."""
    pods = PodBench(Workbench(tmp_path), f"unix://{tmp_path}/store.sock")
    yield pods
    pods.close()


@pytest.fixture
async def pods(away: PodBench, tmp_path: Path) -> AsyncIterator[PodBench]:
    """Pods whose store is up, with a job written."""
    async with EmbeddedRedis(tmp_path / "redis") as url:
        away.url = url
        away.write()
        yield away
        away.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def complete(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodBench]:
    """Pods that have ended, their job complete, with the store still up."""
    folder = tmp_path_factory.mktemp("complete")
    async with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as url:
        pods = PodBench(Workbench(folder), url)
        pods.write(groups=4)
        driver = pods.driver()
        pods.worker()
        code = await asyncio.to_thread(driver.wait)
        pods.close()
        assert code == 0, driver.log
        yield pods


@pytest.fixture
def ended(complete: PodBench, tmp_path: Path) -> Iterator[PodBench]:
    """A copy of the complete job's folder, on the same store."""
    shutil.copytree(complete.bench.folder, tmp_path, dirs_exist_ok=True)
    pods = PodBench(Workbench(tmp_path), complete.url)
    yield pods
    pods.close()


def test_a_job_ends_with_the_files_of_a_run_and_its_audit(pods: PodBench) -> None:
    driver = pods.driver()
    pods.worker(0)
    pods.worker(1)

    assert driver.wait() == 0, driver.log
    pods.bench.assert_whole(REQUESTS)
    files = {path.name for path in pods.bench.run.path.iterdir()}
    assert files == {
        *("results.jsonl", "samples.jsonl", "run.json", "job.json"),
        *("report.json", "report.html", "audit.json"),
    }
    assert pods.run_record()["state"] == "complete"
    assert json.loads(pods.bench.run.report_file.read_text())["requests_ok"] == REQUESTS
    assert json.loads(pods.bench.run.audit_file.read_text())["ok"] is True
    summary, audit, places = driver.log.splitlines()[-3:]
    assert f"{REQUESTS} of {REQUESTS} responses in" in summary
    assert "no violation" in audit
    assert "results runs/bench/results.jsonl, report runs/bench/report.html" in places
    counts = BatchProgress.from_json(driver.termination_file.read_text())
    assert counts is not None
    assert (counts.ok, counts.requests, counts.complete) == (REQUESTS, REQUESTS, True)


def test_the_commands_for_local_runs_read_the_folder_of_a_pod(ended: PodBench) -> None:
    audited = ended.bench.call("audit", "runs/bench")
    assert audited.returncode == 0
    assert "has no store/; this is the audit from the end of the run" in audited.stdout
    assert "16 requests, 16 results" in audited.stdout
    compared = ended.bench.call("compare", "runs/bench", "runs/bench", "--json")
    assert json.loads(compared.stdout)["runs"][0]["requests_total"] == 16


def test_a_killed_and_recreated_driver_loses_and_doubles_nothing(pods: PodBench) -> None:
    pods.write(rollout={"quantumTokens": 32, "leaseSeconds": 60, "checkpointSeconds": 0.1})
    first = pods.driver()
    pods.worker()
    pods.until_results(5)
    first.end(signal.SIGKILL)
    kept = pods.bench.run.results_file.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]

    second = pods.driver()

    assert second.wait() == 0, second.log
    assert pods.bench.run.results_file.read_bytes().startswith(kept)
    pods.bench.assert_whole(REQUESTS)
    assert len(pods.run_record()["sessions"]) == 2
    # The workers continued meanwhile and lost no lease.
    assert not [line for line in pods.bench.run.results() if any(chunk.event == "reap" for chunk in line.chunks)]


def test_a_job_with_failed_responses_completes_with_the_reasons(pods: PodBench) -> None:
    pods.write(failurePolicy={"requestRetries": 0})
    driver = pods.driver()
    worker = pods.worker()
    pods.until_results(5)
    worker.end(signal.SIGKILL)
    pods.worker()

    assert driver.wait() == 0, driver.log
    failed = sum(line.status == "infra_failed" for line in pods.bench.run.results())
    assert f"{failed} of {REQUESTS} failed: losses of its worker: more than spec." in driver.log
    counts = BatchProgress.from_json(driver.termination_file.read_text())
    assert counts is not None
    assert counts.infra_failed == failed > 0


def test_a_replaced_driver_exits_and_its_successor_completes_the_job(pods: PodBench) -> None:
    first = pods.driver()
    worker = pods.worker()
    pods.until_results(5)
    worker.end(signal.SIGKILL)

    second = pods.driver()

    assert first.wait() == 4, first.log
    assert FENCED in first.log
    assert FENCED in first.termination_file.read_text()
    pods.worker(1)
    assert second.wait() == 0, second.log
    pods.bench.assert_whole(REQUESTS)
    assert pods.run_record()["state"] == "complete"


def test_a_stopped_driver_reports_it_and_can_be_resumed(pods: PodBench) -> None:
    first = pods.driver()
    pods.worker()
    pods.until_results(5)

    assert first.end(signal.SIGTERM) == 143, first.log
    assert pods.run_record()["state"] == "stopped"

    second = pods.driver()
    assert second.wait() == 0, second.log
    assert "resuming: " in second.log
    pods.bench.assert_whole(REQUESTS)


def test_a_driver_of_a_complete_job_audits_it_again(ended: PodBench) -> None:
    before = ended.bench.run.results_file.read_bytes()
    ended.bench.run.audit_file.unlink()

    assert ended.driver().wait() == 0
    assert ended.bench.run.results_file.read_bytes() == before
    ended.bench.assert_whole(16)


async def test_driver_and_worker_wait_for_a_store_that_starts_later(away: PodBench, tmp_path: Path) -> None:
    away.write(groups=4)
    driver = away.driver()
    worker = away.worker()
    away.bench.until(lambda: "waiting for the store" in driver.log, "the driver's wait")
    assert driver.get("/healthz") == (200, "ok\n")
    assert driver.get("/readyz")[0] == 503
    assert driver.process.poll() is worker.process.poll() is None

    async with EmbeddedRedis(tmp_path / "redis") as url:
        (tmp_path / "store.sock").symlink_to(url.removeprefix("unix://"))
        assert await asyncio.to_thread(driver.wait) == 0, driver.log
        away.close()
    away.bench.assert_whole(16)


async def test_a_store_that_refuses_a_command_ends_the_driver_with_its_message(pods: PodBench) -> None:
    driver = pods.driver()
    pods.bench.until(lambda: "0/96 requests" in driver.log, "the first line of progress")
    redis: Any = Redis(unix_socket_path=pods.url.removeprefix("unix://"))
    async with redis:
        await redis.acl_setuser("default", enabled=True, commands=["-evalsha"])
    assert driver.wait() == 4, driver.log
    assert "refused a command: " in driver.termination_file.read_text()
    assert "Traceback" not in driver.log


def test_a_driver_stopped_while_waiting_for_the_store_exits_at_once(away: PodBench) -> None:
    away.write()
    driver = away.driver()
    away.bench.until(lambda: "waiting for the store" in driver.log, "the driver's wait")

    driver.process.send_signal(signal.SIGTERM)

    assert driver.wait() == 143
    assert not away.bench.run.path.exists()


def test_probes_and_figures_are_served(pods: PodBench) -> None:
    driver = pods.driver()
    pods.bench.until(lambda: "0/96 requests" in driver.log, "the first line of progress")
    # The first sample may be taken before the last group is known to be submitted.
    pods.bench.until(lambda: driver.get("/readyz") == (200, "ok\n"), "the driver's readiness")
    status, metrics = driver.get("/metrics")
    assert status == 200
    assert 'openseer_requests{state="waiting"} 96.0' in metrics
    assert 'openseer_workers{state="busy"} 0.0' in metrics

    pods.worker()
    pods.until_results(5)

    def tokens() -> float:
        lines = driver.get("/metrics")[1].splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("openseer_tokens_total "))

    pods.bench.until(lambda: tokens() > 0, "the first tokens counted")


def test_prompts_are_read_where_they_are_mounted(pods: PodBench) -> None:
    mounted = pods.bench.folder / "mounted.jsonl"
    pods.write(groups=4, prompts={"configMap": {"name": "prompts", "key": "prompts.jsonl"}})
    (pods.bench.folder / "prompts.jsonl").rename(mounted)
    driver = pods.driver("--prompts", str(mounted))
    pods.worker()

    assert driver.wait() == 0, driver.log
    pods.bench.assert_whole(16)


def test_invalid_prompts_are_reported_in_one_line_before_the_start(away: PodBench) -> None:
    away.write()
    (away.bench.folder / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n{"id": 5}\n')
    driver = away.driver()

    assert driver.wait() == 2
    message = driver.termination_file.read_text()
    assert message.startswith("error: prompts.jsonl: 3 problems: prompts.jsonl line 1: lengths: missing")
    assert "; prompts.jsonl line 2: not valid JSON" in message
    assert "\n" not in message
    assert message in driver.log
    assert not away.bench.run.path.exists()


def test_a_termination_message_is_cut_to_kubernetes_limit(away: PodBench) -> None:
    away.write()
    line = json.dumps({"id": "ä" * 60, "prompt": "ä", "lengths": [1]}, ensure_ascii=False)
    (away.bench.folder / "prompts.jsonl").write_text(f"{line}\n" * 99)
    driver = away.driver()

    assert driver.wait() == 2
    assert 2000 < len(driver.termination_file.read_bytes()) <= 4096


@pytest.mark.parametrize(("content", "problem"), [("{", "not JSON"), ("{}", "apiVersion: missing")])
def test_an_invalid_job_exits_with_the_code_of_invalid_input(away: PodBench, content: str, problem: str) -> None:
    away.job_file.write_text(content)
    driver = away.driver()

    assert driver.wait() == 2
    assert problem in driver.termination_file.read_text()


def test_a_folder_of_another_manifest_is_refused_with_the_fields(ended: PodBench) -> None:
    ended.write(groups=4, sampling={"maxTokens": 400, "forceLengths": True})
    driver = ended.driver()

    assert driver.wait() == 2
    assert "changed: spec.sampling.maxTokens" in driver.termination_file.read_text()


def test_a_store_that_holds_the_job_of_another_folder_is_refused(ended: PodBench) -> None:
    driver = ended.driver(output="runs/other")

    assert driver.wait() == 2
    assert "the store already has a job default/bench" in driver.log


async def test_a_run_whose_store_is_lost_fails_and_keeps_its_results(away: PodBench, tmp_path: Path) -> None:
    away.write()
    async with EmbeddedRedis(tmp_path / "redis") as url:
        away.url = url
        first = away.driver()
        away.worker()
        await asyncio.to_thread(away.until_results, 5)
        away.close()
    assert first.process.returncode == -signal.SIGKILL
    kept = away.bench.results()

    async with EmbeddedRedis(tmp_path / "empty") as url:
        away.url = url
        driver = away.driver()
        assert await asyncio.to_thread(driver.wait) == 5, driver.log
    assert f"has {kept} results, but the store has no data of this job" in driver.log
    assert away.bench.results() == kept


def test_a_falsified_result_fails_the_audit(ended: PodBench) -> None:
    lines = ended.bench.run.results_file.read_text().splitlines()
    lines[3] = lines[3].replace('"token_ids":[', '"token_ids":[7,', 1)
    ended.bench.run.results_file.write_text("\n".join(lines) + "\n")
    driver = ended.driver()

    assert driver.wait() == 6, driver.log
    assert "violation" in driver.termination_file.read_text()
    assert ended.bench.run.report_page.exists()
    audited = ended.bench.call("audit", "runs/bench")
    assert audited.returncode == 6
    assert "tokens: " in audited.stdout


def test_an_output_folder_that_cannot_be_made_is_named(pods: PodBench) -> None:
    (pods.bench.folder / "runs").write_text("a file")
    driver = pods.driver()

    assert driver.wait() == 3
    assert "runs/bench" in driver.termination_file.read_text()
