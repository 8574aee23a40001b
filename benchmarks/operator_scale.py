"""Measures the operator with 1,000 jobs and 5,000 workers, on a real control plane with nodes simulated by kwok.

    python benchmarks/operator_scale.py               1,000 jobs of 5 workers, about 25 minutes
    python benchmarks/operator_scale.py --quick       50 jobs, about a minute

Needs the control plane's programs (`make cluster-tools`, `cluster/cluster.sh prepare`) or KUBEBUILDER_ASSETS.
etcd, kube-apiserver, kube-controller-manager, kube-scheduler, one Redis for all jobs (spec.store.url) and the operator
(a process) are real. kwok simulates nodes and pods. The benchmark writes the workers' heartbeats, claims and results to
each job's store. Every job is a batch as users write it: driver pod, workers with a GPU each, a volume for results.

The phases are the ramp (all jobs are applied at once, until every pod is Ready and every job reports it), the settling
(each pod is annotated as busy, at the operator's limit of writes), the rest (jobs run and progress without other
changes), and a restart of the operator. A look is one reconcile step of one job; the job's wait before it is measured
separately.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from support.control_plane import Client, ControlPlane, Json, MissingProgramsError, client_of, free_port
from support.operator_metrics import Reading, read, window
from support.played_workers import BEAT_SECONDS, Key, PlayedWorkers
from support.stamp import Stamp

ROOT = Path(__file__).resolve().parent.parent
NAMESPACES = 10
JOBS_PER_NODE = 15
"""Their 75 workers have 80 GPUs, and with their drivers less than the 110 pods that a node takes."""
RAMP_SECONDS = 3600.0
"""Longest wait for the steady state."""
SETTLE_SECONDS = 1200.0
"""Longest wait until every pod is stamped."""
RESTART_SECONDS = 600.0
"""Longest wait until a new operator has looked at every job."""
POLL_SECONDS = 3.0
STARTED_SECONDS = 60.0
"""Longest start of the operator with no jobs there."""
SETTLED_SECONDS = 10.0
"""In which fewer stamps than one a second were written."""
NAMESPACE = "openseer"
JOBS_PATH = "/apis/openseer.dev/v1alpha1/rolloutjobs"
TARGETS = {"looks_within_1_s": 0.99, "writes_per_job_per_minute": 1.0, "writes_per_second": 20.0}


# ---- the objects of the workload


def nodes(count: int) -> Iterator[Json]:
    """Nodes of 80 GPUs."""
    room = {"cpu": "512", "memory": "4Ti", "pods": "110", "nvidia.com/gpu": "80", "ephemeral-storage": "4Ti"}
    for number in range(count):
        name = f"node-{number:03}"
        yield {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "type": "kwok"}},
            "status": {"capacity": room, "allocatable": room},
        }


def volumes(count: int) -> Iterator[Json]:
    """A volume for the results of each job; it stays empty."""
    for number in range(count):
        yield {
            "metadata": {"name": f"volume-{number:05}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": f"/nowhere/{number:05}"},
            },
        }


def job(key: Key, workers: int, store: str) -> Json:
    """A batch as a user writes it, with the benchmark's Redis."""
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"namespace": key[0], "name": key[1]},
        "spec": {
            "model": {"path": "examples/tiny-model/model"},
            "prompts": {"path": "examples/tiny-model/prompts.jsonl"},
            "store": {"url": store},
            "workers": {"replicas": workers, "resources": {"limits": {"nvidia.com/gpu": 1}}},
        },
    }


def ready(raw: Json, workers: int) -> bool:
    """Whether a job's status reports it and all its workers ready."""
    status: Json = raw.get("status") or {}
    conditions: list[Json] = status.get("conditions") or []
    reported = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return reported and status.get("workers", {}).get("ready") == workers


class ProgressLine:
    """A line that shows the progress: rewritten on a terminal, elsewhere a new line every ten seconds."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._printed = 0.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        line = f"{now - self._start:5.0f} s  {text}"
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif now - self._printed >= 10.0:
            self._printed = now
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)


class Scale:
    """One measurement, phase after phase."""

    def __init__(self, plane: ControlPlane, client: Client, session: aiohttp.ClientSession, options: Any) -> None:
        self._plane = plane
        self._client = client
        self._session = session
        self._progress = ProgressLine()
        self._workers: int = options.workers
        self._rest_seconds: float = options.rest
        self._keys = [(f"team-{n % NAMESPACES}", f"job-{n:04}") for n in range(options.jobs)]
        self._pods = options.jobs * (options.workers + 1)
        self._port = free_port()
        self._generation = 0
        self.played = PlayedWorkers(client, plane.redis, self._keys, options.workers)

    async def run(self) -> Json:
        """Runs all phases and returns the measurements."""
        self._progress("the control plane is up")
        await self._create_surroundings()
        self._start_operator()
        await self._until(STARTED_SECONDS, "the operator leads", self._leading)
        playing = asyncio.create_task(self.played.run())
        try:
            ramp, ramped = await self._ramp()
            settling, settled = await self._settle(ramped)
            rest = await self._rest(settled)
            restart = await self._restart()
        finally:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing
            self._progress.end()
        return {"ramp": ramp, "settling": settling, "rest": rest, "restart": restart}

    # ---- phases

    async def _create_surroundings(self) -> None:
        """Creates the objects that exist before the jobs."""
        self._progress("nodes, volumes, namespaces")
        definition = (ROOT / "crds/rolloutjobs.yaml").read_text()
        await self._client.create_yaml("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        names = [NAMESPACE, *(f"team-{number}" for number in range(NAMESPACES))]
        await self._client.create("/api/v1/namespaces", ({"metadata": {"name": name}} for name in names))
        # One to spare: drivers may take the room for pods of nodes whose GPUs are free.
        await self._client.create("/api/v1/nodes", nodes(-(-len(self._keys) // JOBS_PER_NODE) + 1))
        await self._client.create("/api/v1/persistentvolumes", volumes(len(self._keys)))
        await asyncio.sleep(POLL_SECONDS)  # for discovery, and for the nodes' taints to go

    async def _ramp(self) -> tuple[Json, Reading]:
        before, cpu, start = await self._reading(), self._plane.cpu_seconds(), time.monotonic()
        await asyncio.gather(
            *(
                self._client.create(f"{JOBS_PATH.rpartition('/')[0]}/namespaces/{key[0]}/rolloutjobs", [body])
                for key in self._keys
                for body in [job(key, self._workers, self._plane.redis)]
            )
        )
        applied = time.monotonic() - start
        await self._until(RAMP_SECONDS, "pods Ready", self._pods_ready)
        running = time.monotonic() - start
        await self._until(RAMP_SECONDS, "jobs Ready", self._jobs_ready)
        steady = time.monotonic() - start
        after = await self._reading()
        return {
            "applied_seconds": round(applied, 1),
            "pods_ready_seconds": round(running, 1),
            "steady_seconds": round(steady, 1),
            "memory_mb_peak": round(self._plane.memory_mb("operator")[1], 1),
            "cores": self._cores(cpu, steady),
            **window(before, after, len(self._keys)),
        }, after

    async def _settle(self, before: Reading) -> tuple[Json, Reading]:
        """Waits until less than one stamp a second is written."""
        end, last = time.monotonic() + SETTLE_SECONDS, before
        stamp = ("PATCH", "Pod")
        while True:
            await self._pause(SETTLED_SECONDS, f"settling, {last.calls[stamp]} stamps written")
            now = await self._reading()
            if now.calls[stamp] - last.calls[stamp] < now.at - last.at or now.at > end:
                break
            last = now
        return window(before, now, len(self._keys)), now

    async def _rest(self, before: Reading) -> Json:
        cpu, start = self._plane.cpu_seconds(), time.monotonic()
        await self._pause(self._rest_seconds, "jobs run, nothing else happens")
        cores, after = self._cores(cpu, time.monotonic() - start), await self._reading()
        now, peak = self._plane.memory_mb("operator")
        memory = {"memory_mb": round(now, 1), "memory_mb_peak": round(peak, 1)}
        return {**memory, "cores": cores, **window(before, after, len(self._keys))}

    async def _restart(self) -> Json:
        """Ends the operator cleanly, as an upgrade does, and starts a new process without its state."""
        self._progress("restart of the operator")
        ended = await asyncio.to_thread(self._plane.end, "operator")
        start = time.monotonic()
        self._start_operator()
        await self._until(RESTART_SECONDS, "the operator leads", self._leading, every=0.2)
        leading = time.monotonic() - start
        await self._until(RESTART_SECONDS, "jobs looked at", self._looked_at, every=0.2)
        looked = time.monotonic() - start
        after = await self._reading()
        nothing = Reading(after.at - looked, {}, {}, Counter(), 0.0, 0.0, leads=False, jobs=0, queue=0)
        times = {"ended_seconds": ended, "leads_seconds": leading, "looked_at_all_seconds": looked}
        return {name: round(value, 2) for name, value in times.items()} | window(nothing, after, len(self._keys))

    # ---- conditions to wait for: the missing part as text, "" for none

    async def _leading(self) -> str:
        with contextlib.suppress(aiohttp.ClientError):
            if (await self._reading()).leads:
                return ""
        return "waiting for the operator"

    async def _looked_at(self) -> str:
        now = await self._reading()
        return f"{now.jobs} jobs reconciled" if now.jobs < len(self._keys) or now.queue else ""

    async def _pods_ready(self) -> str:
        rows = await self._client.rows("/api/v1/pods")
        count = sum(row[1] == "1/1" for row in rows)
        return f"{count} of {self._pods} pods Ready, {len(rows)} created" if count < self._pods else ""

    async def _jobs_ready(self) -> str:
        count = sum(ready(raw, self._workers) for raw in await self._client.items(JOBS_PATH))
        return f"{count} of {len(self._keys)} jobs report Ready" if count < len(self._keys) else ""

    # ---- helpers

    def _start_operator(self) -> None:
        self._generation += 1
        keys = self._plane.folder / "store-keys"
        keys.mkdir(exist_ok=True)
        (keys / "1").write_text("k" * 64)
        environment = {
            "KUBECONFIG": str(self._plane.kubeconfig),
            "OPENSEER_NAMESPACE": NAMESPACE,
            "OPENSEER_WORKER_IMAGE": "openseer-worker:scale",
            "OPENSEER_STORE_IMAGE": "openseer-operator:scale",
            "OPENSEER_IDENTITY": f"scale-{self._generation}",
            "OPENSEER_HTTP_PORT": str(self._port),
            "OPENSEER_STORE_KEYS": str(keys),
            "OPENSEER_STORE_HOSTS": "127.0.0.0/8",
        }
        self._plane.start("operator", sys.executable, "-m", "openseer_operator.main", environment=environment)

    async def _reading(self) -> Reading:
        async with self._session.get(f"http://127.0.0.1:{self._port}/metrics") as response:
            return read(await response.text())

    def _cores(self, before: dict[str, float], seconds: float) -> dict[str, float]:
        """The mean number of busy processors of each process."""
        return {name: round((cpu - before[name]) / seconds, 2) for name, cpu in self._plane.cpu_seconds().items()}

    async def _until(
        self, limit: float, event: str, missing: Callable[[], Awaitable[str]], every: float = POLL_SECONDS
    ) -> None:
        end = time.monotonic() + limit
        while lacking := await missing():
            if time.monotonic() > end:
                raise RuntimeError(f"{event}: not within {limit:.0f} s: {lacking}\n{self._plane.log_tail('operator')}")
            await self._pause(every, lacking)

    async def _pause(self, seconds: float, text: str) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._plane.check()
            self._progress(text)
            await asyncio.sleep(min(left, 1.0))


# ---- command


async def measure(options: argparse.Namespace) -> Json:
    """Runs all measurements on a control plane of its own."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with ControlPlane() as plane:
        async with client_of(plane) as client, aiohttp.ClientSession() as session:
            scale = Scale(plane, client, session, options)
            measurements = await scale.run()
    played = scale.played
    return {
        **measurements,
        "jobs": options.jobs,
        "workers_per_job": options.workers,
        "mode": "batch",
        "played": {
            "beat_seconds": BEAT_SECONDS,
            "visits": played.visits,
            "failures": played.failures,
            "latest_seconds": round(played.late_seconds, 1),
        },
        "targets": TARGETS,
    }


def show(measurements: Json) -> None:
    """Prints the table."""
    jobs, load = measurements["jobs"], measurements["load"]["start"]
    print(
        f"{jobs} jobs, {jobs * measurements['workers_per_job']} workers; {measurements['machine']}, load {load} before"
    )
    ramp, rest, restart = measurements["ramp"], measurements["rest"], measurements["restart"]
    print(
        f"ramp: applied after {ramp['applied_seconds']} s, all pods Ready after {ramp['pods_ready_seconds']} s, "
        f"all jobs Ready after {ramp['steady_seconds']} s"
    )
    print(
        f"restart: ended in {restart['ended_seconds']} s; the new one leads after {restart['leads_seconds']} s and has "
        f"reconciled all after {restart['looked_at_all_seconds']} s"
    )
    print(f"operator: {ramp['memory_mb_peak']} MB at most in the ramp, {rest['memory_mb']} MB at rest")
    head = ("", "s", "looks", "p50 ms", "p99 ms", "max s ≤", "≤ 1 s", "wait p50", "wait p99", "writes/s", "per job/min")
    print("".join(f"{title:>12}" for title in head))
    for name in ("ramp", "settling", "rest", "restart"):
        row = measurements[name]
        looks, waits = row["looks"], row["waits"]
        cells = (
            name,
            row["seconds"],
            looks["count"],
            *(f"{1000 * looks[part]:.1f}" for part in ("p50_seconds", "p99_seconds")),
            looks["longest_at_most_seconds"],
            f"{looks['share_within_1_s']:.2%}",
            *(f"{waits[part]:.2f} s" for part in ("p50_seconds", "p99_seconds")),
            row["writes_per_second"],
            row["writes_per_job_per_minute"],
        )
        print("".join(f"{cell:>12}" for cell in cells))
    print("calls per job in the ramp: " + ", ".join(f"{verb} {n}" for verb, n in ramp["calls_per_job"].items()))
    print("cores in the ramp: " + ", ".join(f"{name} {n}" for name, n in ramp["cores"].items()))


def main() -> int:
    """Runs all phases and prints a table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=5, help="workers of each job, with one GPU each")
    parser.add_argument("--rest", type=float, default=240.0, help="measured seconds at rest")
    parser.add_argument("--quick", action="store_true", help="50 jobs, 20 s at rest; skipped without the programs")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.jobs, options.rest = 50, 20.0
    try:
        measurements = asyncio.run(measure(options)) | stamp.fields()
    except MissingProgramsError as error:
        print(f"skipped: {error}" if options.quick else f"error: {error}", file=sys.stderr)
        return 0 if options.quick else 3
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped; nothing is left behind", file=sys.stderr)
        return 130
    show(measurements)
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
