"""A serving job on this machine, through the real commands, a real Redis and real worker processes."""

import os
import signal
import socket
from pathlib import Path

import pytest

from openseer_client import BatchSpec, Group, Sampling
from tests.e2e.server import Server
from tests.e2e.workbench import CALM, END_SECONDS, Workbench, alive
from tests.worker.weights.made import write_weights

pytestmark = [pytest.mark.redis]

MANY = 64
"""Groups that keep two workers busy for a quarter of a minute."""


@pytest.fixture
def server(bench: Workbench) -> Server:
    made = Server(bench)
    made.write()
    return made


def assert_each_once(server: Server, name: str, requests: int) -> None:
    keys = [(entry["group"], entry["index"], entry["turn"]) for entry in server.results(name)]
    assert len(keys) == len(set(keys)) == requests
    assert {entry["status"] for entry in server.results(name)} == {"ok"}


def test_groups_are_submitted_read_into_a_file_and_acknowledged(server: Server) -> None:
    server.start()
    said = server.json("submit", server.prompts(6), "--key", "one", "--wait")
    assert (said["accepted"], said["present"], said["batch"]["state"]) == (6, 0, "complete")
    again = server.json("submit", server.prompts(6), "--key", "one", "--no-seal")
    assert (again["accepted"], again["present"], again["batch"]["id"]) == (0, 6, said["batch"]["id"])

    server.call("results", "1", "--output", "results.jsonl")
    for _ in range(2):  # a repeat changes nothing, also after the deletion of the data
        read = server.json("results", "1", "--output", "results.jsonl", "--follow", "--acknowledge")
        assert (read["results"], read["state"]) == (24, "acknowledged")
    assert_each_once(server, "results.jsonl", 24)
    with server.client() as client:
        assert client.batches() == []
    assert "data are gone" in server.call("results", "1", code=2)


def test_a_killed_server_resumes_its_batches(server: Server) -> None:
    server.start()
    assert server.process is not None
    server.json("submit", server.prompts(MANY))
    words = ("results", "1", "--output", "r.jsonl", "--follow", "--acknowledge")
    reader = server.bench.start(*server.words(*words))
    file = server.bench.folder / "r.jsonl"
    server.bench.until(lambda: file.exists() and len(server.results("r.jsonl")) >= 8, "the first results")
    below = server.bench.descendants(server.process)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    server.bench.until(lambda: not any(alive(pid) for pid in below), "nothing is left running")
    assert len(server.results("r.jsonl")) < 4 * MANY

    server.start()

    output, _ = reader.communicate(timeout=END_SECONDS)
    assert reader.returncode == 0, output
    assert_each_once(server, "r.jsonl", 4 * MANY)


def test_a_store_that_refuses_a_command_ends_the_server_with_its_message(server: Server) -> None:
    server.start()
    assert server.process is not None
    server.bench.refuse_commands(server.process)
    output, _ = server.process.communicate(timeout=END_SECONDS)
    assert server.process.returncode == 4, output
    assert "refused a command: " in output
    assert "Traceback" not in output


def test_ctrl_c_stops_cleanly_and_the_same_command_resumes(server: Server) -> None:
    server.write(rollout=CALM)
    server.start()
    assert server.process is not None
    server.json("submit", server.prompts(MANY))
    with server.client() as client:
        server.bench.until(lambda: client.batch(1).status().metrics.requests_ok >= 4, "the first results")
    token = server.token_file.read_text()
    below = server.bench.descendants(server.process)
    os.kill(server.process.pid, signal.SIGINT)
    output, _ = server.process.communicate(timeout=END_SECONDS)
    assert server.process.returncode == 130, output
    assert "the same command resumes from here" in output
    assert token.strip() not in output
    server.bench.until(lambda: not any(alive(pid) for pid in below), "nothing is left running")

    server.start()

    assert server.token_file.read_text() == token
    assert server.token_file.stat().st_mode & 0o777 == 0o600
    server.call("results", "1", "--output", "r.jsonl", "--follow")
    assert_each_once(server, "r.jsonl", 4 * MANY)
    events = {chunk["event"] for entry in server.results("r.jsonl") for chunk in entry["chunks"]}
    assert "give_back" in events
    assert "reap" not in events


def test_lent_gpus_have_no_worker_until_they_are_acquired(server: Server) -> None:
    server.start()
    server.until_ready()
    assert server.json("release", "--mode", "stop")["state"] == "released"
    server.bench.until(lambda: not server.workers(), "their processes have ended")
    batch = server.json("submit", server.prompts(4))["batch"]
    assert batch["metrics"]["requests_ok"] == 0

    assert server.json("acquire")["state"] == "awake"

    assert len(server.workers()) == 2
    server.call("results", str(batch["id"]), "--output", "r.jsonl", "--follow")
    assert_each_once(server, "r.jsonl", 16)


def test_a_drained_worker_restarts_and_counts_as_no_failure(server: Server) -> None:
    server.write(failurePolicy={"workerRestarts": 0})
    server.start()
    server.until_ready()
    victim = server.workers()[0]
    os.kill(victim, signal.SIGTERM)
    server.bench.until(lambda: len(set(server.workers()) - {victim}) == 2, "another worker in its place")
    assert server.json("submit", server.prompts(2), "--wait")["batch"]["metrics"]["requests_ok"] == 8


def test_tokens_are_scored_once_each_after_a_workers_death(server: Server) -> None:
    """The prefill takes two seconds, in which its worker dies."""
    scripted = {"stepSeconds": 0.004, "slots": 2, "prefillTokensPerSecond": 100}
    server.write(model={"path": "none", "engine": "scripted", "scripted": scripted}, workers={"replicas": 1})
    server.start()
    server.until_ready(1)
    given = [[5, 6, *range(number, number + 198)] for number in range(4)]
    with server.client() as client:
        batch = client.open_batch(BatchSpec(group_size=1, sampling=Sampling(score_from=2)))
        batch.submit(Group(id=f"g{number}", prompt_token_ids=tokens) for number, tokens in enumerate(given))
        batch.seal()
        states = lambda: {batch.request(f"g{number}", 0).state for number in range(4)}  # noqa: E731
        server.bench.until(lambda: "leased" in states(), "a prompt is read")
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        [*groups] = batch.groups(acknowledge=True)
    assert sorted(group.name for group in groups) == ["g0", "g1", "g2", "g3"]
    for group in groups:
        [item] = group.results
        assert item.token_ids == given[int(group.name[1:])][2:]
        assert item.scores() == groups[0].results[0].scores()
        assert (item.sampled, item.mask(), len(item.versions)) == ([], [False] * 198, 1)
    assert sum(len(group.results[0].chunks) > 1 for group in groups) > 0


def test_published_weights_reach_every_worker_and_sample_the_next_batch(server: Server) -> None:
    folder = server.bench.folder / "new-weights"
    write_weights(folder, "other weights")
    server.start()
    server.until_ready()

    told = server.json("weights", "publish", "new-weights", "--version", "v1")

    assert (told["phase"], {worker["version"] for worker in told["workers"]}) == ("done", {"v1"})
    assert server.json("weights", "status")["version"] == "v1"
    server.json("submit", server.prompts(2), "--wait")
    server.call("results", "1", "--output", "r.jsonl")
    assert {entry["weights_version"] for entry in server.results("r.jsonl")} == {"v1"}
    # With a file that cannot be loaded the fleet keeps its weights, and the reason is reported.
    (folder / "model.safetensors").write_bytes(b"no such file")
    said = " ".join(server.call("weights", "publish", "new-weights", "--version", "v2", code=5).split())
    assert "model.safetensors is no safetensors file" in said
    assert "The fleet serves v1" in said
    assert server.json("weights", "status")["version"] == "v1"
    assert "weights v1 were published before" in server.call("weights", "publish", ".", "--version", "v1", code=2)


def test_unfinished_responses_are_cancelled_and_reported(server: Server) -> None:
    slow = {"stepSeconds": 0.1, "stepSecondsPerRequest": 0.0, "slots": 4}  # runs until it is cancelled
    server.write(model={"path": "none", "engine": "scripted", "scripted": slow})
    server.start()
    server.json("submit", server.prompts(MANY))
    assert 1 <= server.json("cancel", "1", "--group", "g3")["count"] <= 4
    assert server.json("cancel", "1")["batch"]["state"] == "complete"
    server.call("results", "1", "--output", "r.jsonl")
    entries = server.results("r.jsonl")
    assert len(entries) == 4 * MANY
    assert "cancelled" in {entry["finish_reason"] for entry in entries if entry["group"] == "g3"}


# ---- errors before the start


def refused(bench: Workbench, *arguments: str, code: int = 2) -> str:
    done = bench.call(*arguments)
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    assert not (bench.folder / "runs").exists()
    return " ".join(done.stdout.split())


def test_a_batch_job_is_not_served(bench: Workbench) -> None:
    bench.write()
    assert "spec.mode: found batch" in refused(bench, "serve", "job.yaml")


def test_a_port_that_is_in_use_is_named(bench: Workbench, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"--port: {port} is in use" in refused(bench, "serve", "job.yaml", "--port", str(port))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--host", "0.0.0.0"), "which other machines can reach; give --token-file"),
        (("--host", "192.0.2.1", "--token", "long"), "which is not an address of this machine"),
        (("--token", "a", "--token-file", "b"), "give only one of them"),
        (("--token-file", "nothing"), "--token-file: nothing cannot be read: No such file"),
        (("--token", "two words"), "no spaces"),
    ],
)
def test_unsafe_options_are_refused(bench: Workbench, server: Server, options: tuple[str, ...], expected: str) -> None:
    assert expected in refused(bench, "serve", "job.yaml", *options)


def test_commands_need_a_url_and_report_an_unreachable_server(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENSEER_URL", raising=False)
    assert "--url: none given" in refused(bench, "status")
    assert "no answer from the API" in refused(bench, "status", "--url", "http://127.0.0.1:1", code=4)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', "groups.jsonl line 2: not valid JSON"),
        ('{"prompt": "a", "promt": "b"}\n', "groups.jsonl line 1: promt: unknown field"),
        ('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', 'line 2: id "x" is already that of line 1'),
        ("\n", "groups.jsonl: empty"),
    ],
)
def test_an_invalid_file_of_groups_is_refused_with_the_line(bench: Workbench, content: str, expected: str) -> None:
    (bench.folder / "groups.jsonl").write_text(content)
    assert expected in refused(bench, "submit", "groups.jsonl", "--url", "http://127.0.0.1:1")


def test_a_foreign_file_is_not_overwritten(bench: Workbench, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine\n")
    said = refused(bench, "results", "1", "--output", str(notes), "--url", "http://127.0.0.1:1")
    assert "notes.txt line 1: not a result of a batch" in said
    assert notes.read_text() == "mine\n"


def test_commands_report_a_wrong_token_and_the_servers_refusals(server: Server) -> None:
    server.start()
    done = server.bench.call("status", "--url", server.url, "--token", "another")
    assert (done.returncode, "401 Unauthorized" in done.stdout) == (2, True), done.stdout
    assert "there is no batch 7" in server.call("cancel", "7", code=2)
    assert "weights_version" in server.call("submit", server.prompts(1), "--version", "v9", code=2)
    second = server.bench.call("serve", "job.yaml", "--port", "0")
    assert (second.returncode, "another run is writing here" in second.stdout) == (3, True), second.stdout
