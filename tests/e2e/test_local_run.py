"""A RolloutJob on this machine, through the real command, a real Redis and real worker processes."""

import contextlib
import json
import os
import shutil
import signal

import pytest

from openseer_local.fleet import FORK_SERVER_RESTARTS
from tests.e2e.workbench import CALM, END_SECONDS, Workbench, alive

pytestmark = pytest.mark.redis

REQUESTS = 12 * 4


def test_each_request_has_one_result_of_its_length_and_the_run_a_report(bench: Workbench) -> None:
    bench.write()
    done = bench.call("run", "job.yaml")
    assert done.returncode == 0, done.stdout
    bench.assert_whole(REQUESTS)
    *_, last = [line for line in done.stdout.splitlines() if "requests  " in line]
    assert last.startswith(f"openseer: {REQUESTS}/{REQUESTS} requests  100 %")
    report = json.loads(bench.run.report_file.read_text())
    assert report["requests_ok"] == report["requests_total"] == REQUESTS
    assert report["preemptions"] == 0
    assert "<svg" in bench.run.report_page.read_text()
    for line in bench.run.results():  # the lengths that were forced
        assert len(line.token_ids) == 1 + (int(line.group[1:]) * 37 + line.index * 11) % 300
        assert line.logprobs is not None
        assert len(line.logprobs) == len(line.token_ids)


def test_a_run_scores_the_tokens_of_its_prompts(bench: Workbench) -> None:
    bench.write(groups=6, groupSize=1, sampling={"scoreFrom": 2})
    file = bench.folder / "prompts.jsonl"
    file.write_text("".join(f'{{"id": "g{n}", "prompt_token_ids": [5, 6, 7, {n}]}}\n' for n in range(6)))
    done = bench.call("run", "job.yaml")
    assert done.returncode == 0, done.stdout
    bench.assert_whole(6)
    for line in bench.run.results():
        assert (line.token_ids, len(line.logprobs or [])) == ([7, int(line.group[1:])], 2)


@pytest.mark.parametrize("policy", ["fifo", "round-robin", "least-inflight", "longest-first-oracle"])
def test_every_policy_completes_everything(bench: Workbench, policy: str) -> None:
    bench.write(groups=6, rollout={"policy": policy, "quantumTokens": 32})
    assert bench.call("run", "job.yaml").returncode == 0
    bench.assert_whole(6 * 4)


def test_the_others_continue_from_a_killed_workers_checkpoint(bench: Workbench) -> None:
    # Whole responses of a second each with a checkpoint every twentieth of it: each held response has one by then.
    rollout = {"quantumTokens": 512, "leaseSeconds": 2, "checkpointSeconds": 0.05}
    bench.write(groups=16, length=500, rollout=rollout)
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 5, "the first results")
    victim = bench.workers(process)[0]
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    assert "died by signal 9" in output
    bench.assert_whole(16 * 4)
    reaped = [line for line in bench.run.results() if any(chunk.event == "reap" for chunk in line.chunks)]
    assert reaped, "the killed worker had no lease"
    assert any(chunk.end > chunk.start for line in reaped for chunk in line.chunks if chunk.event == "reap")


def test_failed_responses_end_a_run_with_code_9_unless_allowed(bench: Workbench) -> None:
    bench.write(failurePolicy={"requestRetries": 0}, workers={"replicas": 1})
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 5, "the first results")
    os.kill(bench.workers(process)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 9, output
    failed = [line for line in bench.run.results() if line.status == "infra_failed"]
    why = "losses of its worker: more than spec.failurePolicy.requestRetries; leases taken back: 1"
    assert {line.stop_reason for line in failed} == {why}
    told = f"{len(failed)} of {REQUESTS} failed: {why} ("
    assert told in output
    [reason] = json.loads(bench.run.report_file.read_text())["failures"]["reasons"]
    assert (reason["reason"], reason["count"]) == (why, len(failed))
    again = bench.call("run", "job.yaml", "--allow-failures")
    assert again.returncode == 0, again.stdout
    assert told in again.stdout
    assert bench.call("run", "job.yaml").returncode == 9


def test_a_store_that_refuses_a_command_ends_a_run_with_its_message(bench: Workbench) -> None:
    bench.write(groups=48)
    process = bench.start("run", "job.yaml")
    bench.until(lambda: len(bench.workers(process)) == 2, "the workers")
    bench.refuse_commands(process)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 4, output
    assert "refused a command: " in output
    assert "Traceback" not in output


def test_a_run_whose_embedded_store_ends_exits_with_that_reason(bench: Workbench) -> None:
    bench.write(groups=48, workers={"replicas": 2, "gracePeriodSeconds": 600})
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 1, "the first result")
    [server] = [pid for pid, line in bench.descendants(process).items() if "unixsocket:" in line]
    os.kill(server, signal.SIGKILL)
    # Less than half of the workers' grace period, which has no use without a store.
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 4, output
    told = "the store's server was killed by signal 9 (SIGKILL)"
    assert output.index(told) < output.index("ending: ") < output.rindex(told)


def test_a_repeatedly_dying_worker_stops_the_job_with_the_reason(bench: Workbench) -> None:
    bench.write(groups=48, failurePolicy={"workerRestarts": 1})
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 1, "the first result")
    deaths = 0
    while process.poll() is None and deaths < 10:
        for victim in bench.workers(process)[:1]:
            with contextlib.suppress(ProcessLookupError):  # the command may have ended it just now
                os.kill(victim, signal.SIGKILL)
            deaths += 1
            bench.until(lambda victim=victim: not alive(victim), "the death")
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 5, output
    assert "spec.failurePolicy.workerRestarts allows 1 restarts" in output


def test_a_killed_fork_server_is_restarted_and_the_run_continues(bench: Workbench) -> None:
    bench.write(groups=24, failurePolicy={"workerRestarts": 0})
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 5, "the first results")
    victims = [*bench.workers(process), *bench.fork_servers(process)]
    os.kill(victims[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    assert "the fork server and its workers were killed by signal 9 (SIGKILL); restart 1 of 3" in output
    assert not any(alive(pid) for pid in victims)
    bench.assert_whole(24 * 4)


def test_a_repeatedly_killed_fork_server_stops_the_job(bench: Workbench) -> None:
    bench.write(groups=48)
    process = bench.start("run", "job.yaml")
    for _ in range(FORK_SERVER_RESTARTS + 1):
        bench.until(lambda: bool(bench.fork_servers(process)), "the fork server")
        [victim] = bench.fork_servers(process)
        os.kill(victim, signal.SIGKILL)
        bench.until(lambda victim=victim: not alive(victim), "its death")
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 5, output
    assert "the fork server ended by signal 9 (SIGKILL) after 3 restarts" in output


def test_ctrl_c_stops_cleanly_and_the_same_command_resumes(bench: Workbench) -> None:
    bench.write(groups=24, rollout=CALM)
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 5, "the first results")
    below = bench.descendants(process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 130, output
    bench.until(lambda: not any(alive(pid) for pid in below), "nothing is left running")
    before = bench.results()
    assert 0 < before < 24 * 4
    done = bench.call("run", "job.yaml")
    assert done.returncode == 0, done.stdout
    bench.assert_whole(24 * 4)
    assert not [line for line in bench.run.results() if any(chunk.event == "reap" for chunk in line.chunks)]


def test_a_killed_command_leaves_no_process_and_can_be_resumed(bench: Workbench) -> None:
    bench.write(groups=24)
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 5, "the first results")
    below = bench.descendants(process)
    assert len(below) >= 4  # store, warm parent, two workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    bench.until(lambda: not any(alive(pid) for pid in below), "nothing is left running")
    done = bench.call("run", "job.yaml")
    assert done.returncode == 0, done.stdout
    bench.assert_whole(24 * 4)


def test_a_terminated_worker_gives_back_its_requests_with_their_tokens(bench: Workbench) -> None:
    bench.write(groups=24, rollout=CALM)
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 5, "the first results")
    os.kill(bench.workers(process)[0], signal.SIGTERM)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0, output
    bench.assert_whole(24 * 4)
    events = {chunk.event for line in bench.run.results() for chunk in line.chunks}
    assert "give_back" in events
    assert "reap" not in events


def test_running_a_complete_run_again_starts_nothing(bench: Workbench) -> None:
    bench.write(groups=4)
    first = bench.call("run", "job.yaml")
    assert first.returncode == 0
    kept = {path: path.read_bytes() for path in (bench.run.results_file, bench.run.run_file, bench.run.samples_file)}
    shutil.rmtree(bench.run.store_folder)  # not even its store is needed
    again = bench.call("run", "job.yaml")
    assert again.returncode == 0, again.stdout
    assert "already complete, so nothing was started; --fresh starts over" in again.stdout
    assert "starting" not in again.stdout
    assert first.stdout.splitlines()[-3:] == again.stdout.splitlines()[-3:]  # the report
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_complete_run_with_lost_results_is_not_called_complete(bench: Workbench) -> None:
    bench.write(groups=4)
    assert bench.call("run", "job.yaml").returncode == 0
    lines = bench.run.results_file.read_bytes().splitlines(keepends=True)
    bench.run.results_file.write_bytes(b"".join(lines[:-1]))
    shutil.rmtree(bench.run.store_folder)
    again = bench.call("run", "job.yaml")
    assert again.returncode == 2
    assert "its folder store/ is missing" in again.stdout


def test_fresh_starts_over(bench: Workbench) -> None:
    bench.write(groups=4)
    assert bench.call("run", "job.yaml").returncode == 0
    first = {line.cursor: line.timings.finished_at for line in bench.run.results()}
    assert bench.call("run", "job.yaml", "--fresh").returncode == 0
    bench.assert_whole(4 * 4)
    assert {line.cursor: line.timings.finished_at for line in bench.run.results()} != first


def test_a_deadline_ends_the_job_and_keeps_finished_results(bench: Workbench) -> None:
    bench.write(groups=48, activeDeadlineSeconds=3)
    done = bench.call("run", "job.yaml")
    assert done.returncode == 5
    assert "spec.activeDeadlineSeconds: 3 s have passed" in done.stdout
    assert bench.results() < 48 * 4


def test_compare_puts_two_runs_side_by_side(bench: Workbench) -> None:
    bench.write(groups=4)
    assert bench.call("run", "job.yaml").returncode == 0
    assert bench.call("run", "job.yaml", "--output", "runs/second").returncode == 0
    done = bench.call("compare", "runs/bench", "runs/second", "--json")
    assert done.returncode == 0
    assert "makespan_seconds" in done.stdout
