"""Measures the time from `kubectl apply` to the first running engine, with a scripted engine that starts at once.

    python benchmarks/first_engine.py

Needs a cluster in which the operator is installed and the worker image is on the nodes: KUBECONFIG's, else the one that
cluster/cluster.sh runs. Redis, driver and worker are created anew for every repeat; the image is not pulled. Times are
those of the events of a watch, and of the worker's process and log, all by one clock.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from support.stamp import Stamp

CLUSTER = Path(__file__).resolve().parent.parent / "cluster/cluster.sh"
TARGET_SECONDS = 3.0
PATIENCE_SECONDS = 90.0
"""A job that has not come so far by then never will."""
CALL_SECONDS = 60.0
MOMENTS = {
    "applied": "kubectl apply returns",
    "created": "the worker's pod is made",
    "scheduled": "the worker's pod has a node",
    "redis_created": "the pod of Redis is made",
    "redis_scheduled": "the pod of Redis has a node, its volume is bound",
    "redis_started": "the container of Redis runs",
    "redis_ready": "Redis is ready",
    "worker_started": "the container of the worker runs",
    "process": "the worker's process begins",
    "engine": "the engine runs and takes requests",
    "ready": "the worker's pod is Ready",
    "status": "the job's status counts the worker",
}
"""The measured moments, in seconds since the time before `kubectl apply`; `engine`: the first running engine."""
PROCESS_START = (
    "import os, time; fields = open('/proc/1/stat').read().rpartition(')')[2].split(); "
    "print(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / os.sysconf('SC_CLK_TCK'))"
)


class NotPossibleError(Exception):
    """There is no cluster, or it lacks a part; the message contains the remedy."""


def main() -> None:
    """Runs the repeats and prints the times of a job's start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="1 repeat; without a cluster only a message")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.repeats = 1
    try:
        measurements = measure(options.repeats) | stamp.fields()
    except (NotPossibleError, subprocess.SubprocessError) as error:
        print(f"not measured: {error} {getattr(error, 'stderr', None) or ''}".strip())
        sys.exit(0 if options.quick else 1)
    show(measurements)
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=2) + "\n")


# ---- the cluster


def command(*arguments: str) -> list[str]:
    """The command line of kubectl for the cluster."""
    return [*([] if os.environ.get("KUBECONFIG") else [str(CLUSTER), "exec"]), "kubectl", *arguments]


def kubectl(*arguments: str, text: str | None = None) -> str:
    """The command's output. Raises CalledProcessError."""
    done = subprocess.run(
        command(*arguments), input=text, capture_output=True, text=True, check=True, timeout=CALL_SECONDS
    )
    return done.stdout


def check() -> None:
    """Raises NotPossibleError."""
    try:
        found = kubectl("get", "deployments", "-A", "-l", "app.kubernetes.io/name=openseer", "-o", "json")
    except (OSError, subprocess.SubprocessError):
        raise NotPossibleError("no cluster: set KUBECONFIG, or start one: make cluster") from None
    if not any(item["status"].get("availableReplicas") for item in json.loads(found)["items"]):
        raise NotPossibleError("the operator does not run in the cluster; install it: docs/kubernetes.md")


@contextmanager
def namespace() -> Generator[str]:
    """A namespace that is deleted afterwards."""
    name = f"first-engine-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


# ---- one repeat


def measure(repeats: int) -> dict[str, Any]:
    """All repeats, one after the other."""
    check()
    with namespace() as namespace_name:
        runs = [one_run(namespace_name, f"job-{number}") for number in range(repeats)]
    engine = [run["engine"] for run in runs]
    return {
        "first_engine_seconds": round(statistics.median(engine), 3),
        "first_engine_seconds_max": round(max(engine), 3),
        "target_seconds": TARGET_SECONDS,
        "median": {name: round(statistics.median(run[name] for run in runs), 3) for name in MOMENTS},
        "max": {name: round(max(run[name] for run in runs), 3) for name in MOMENTS},
        "runs": runs,
    }


def one_run(namespace_name: str, name: str) -> dict[str, float]:
    """The times of one job's events, in seconds since the start of `kubectl apply`."""
    moments: dict[str, float] = {}
    pods = Watch(namespace_name, "pods", lambda raw, now: note_pod(raw, name, moments, now))
    jobs = Watch(namespace_name, "rolloutjobs", lambda raw, now: note_job(raw, name, moments, now))
    time.sleep(1.0)  # both watches are up
    try:
        start = time.time()
        kubectl(
            "apply", "--namespace", namespace_name, "-f", "-", text="\n---\n".join(map(json.dumps, manifests(name)))
        )
        moments["applied"] = time.time()
        await_moments(moments, set(MOMENTS) - {"process", "engine"})
    finally:
        pods.stop()
        jobs.stop()
    moments["process"] = float(
        kubectl("exec", "-n", namespace_name, f"{name}-worker-0", "--", "python", "-c", PROCESS_START)
    )
    moments["engine"] = engine_ran(kubectl("logs", "-n", namespace_name, f"{name}-worker-0", "--timestamps"))
    kubectl("delete", "rolloutjob", name, "-n", namespace_name, f"--timeout={CALL_SECONDS:.0f}s")
    kubectl("wait", "pod", "--all", "-n", namespace_name, "--for=delete", f"--timeout={CALL_SECONDS - 5:.0f}s")
    return {moment: round(moments[moment] - start, 3) for moment in MOMENTS}


def await_moments(moments: Mapping[str, float], expected: set[str]) -> None:
    """Returns when all events have been observed."""
    end = time.monotonic() + PATIENCE_SECONDS
    while missing := expected - moments.keys():
        if time.monotonic() > end:
            raise NotPossibleError(f"after {PATIENCE_SECONDS:.0f} s still missing: {', '.join(sorted(missing))}")
        time.sleep(0.05)


def engine_ran(log: str) -> float:
    """The time at which the worker logged that it is ready."""
    for line in log.splitlines():
        at, _, message = line.partition(" ")
        if " ready: " in message:
            return datetime.fromisoformat(at[:26].rstrip("Z") + "+00:00").timestamp()
    raise NotPossibleError(f"the worker's log does not contain that it is ready:\n{log}")


class Watch:
    """Calls `note` with each version of each object of a kind and the time of its arrival."""

    def __init__(self, namespace_name: str, kind: str, note: Callable[[dict[str, Any], float], None]) -> None:
        watch = command("get", kind, "-n", namespace_name, "--watch", "-o", "json")
        self._process = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self._note = note
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the process, with the processes that cluster.sh started for it."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            lines.append(line)
            if line == "}\n":
                self._note(json.loads("".join(lines)), time.time())
                lines = []


def note_pod(raw: Mapping[str, Any], name: str, moments: dict[str, float], now: float) -> None:
    """Records the times of the pods of the job's worker and Redis."""
    status, pod = raw.get("status", {}), raw["metadata"]["name"]
    running = any("running" in container["state"] for container in status.get("containerStatuses", ()))
    placed = bool(raw["spec"].get("nodeName"))
    conditions = status.get("conditions", ())
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    states = {
        f"{name}-redis-0": {
            "redis_created": True,
            "redis_scheduled": placed,
            "redis_started": running,
            "redis_ready": ready,
        },
        f"{name}-worker-0": {"created": True, "scheduled": placed, "worker_started": running, "ready": ready},
    }
    for moment, reached in states.get(pod, {}).items():
        if reached:
            moments.setdefault(moment, now)


def note_job(raw: Mapping[str, Any], name: str, moments: dict[str, float], now: float) -> None:
    """Records the times of the job's status."""
    if raw["metadata"]["name"] == name and raw.get("status", {}).get("workers", {}).get("ready"):
        moments.setdefault("status", now)


def manifests(name: str) -> list[dict[str, Any]]:
    """The manifests of prompts and of a job with one worker that runs for minutes."""
    lines = [{"id": f"g{number}", "prompt_token_ids": [5, 6, 7], "lengths": [4000] * 4} for number in range(50)]
    prompts = {"name": f"{name}-prompts"}
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    spec = {
        "model": {
            "path": "none",
            "engine": "scripted",
            "scripted": {"stepSeconds": 0.02, "stepSecondsPerRequest": 0.0, "slots": 4},
        },
        "prompts": {"configMap": {**prompts, "key": "prompts.jsonl"}},
        "groupSize": 4,
        "sampling": {"maxTokens": 4096, "forceLengths": True},
        "workers": {"replicas": 1, "gracePeriodSeconds": 5, "resources": small},
        "driver": {"resources": small},
        "store": {"resources": small},
    }
    text = "\n".join(map(json.dumps, lines)) + "\n"
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": prompts, "data": {"prompts.jsonl": text}},
        {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": name}, "spec": spec},
    ]


def show(measurements: dict[str, Any]) -> None:
    """Prints the table, in the order of the events."""
    print(f"{'seconds since kubectl apply began':48}{'median':>8}{'max':>8}")
    for name in sorted(MOMENTS, key=lambda name: measurements["median"][name]):
        print(f"{MOMENTS[name]:48}{measurements['median'][name]:>8.2f}{measurements['max'][name]:>8.2f}")
    print(f"first running engine: {measurements['first_engine_seconds']:.2f} s; target: {TARGET_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
