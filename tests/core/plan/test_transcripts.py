"""Golden transcripts of `plan`: events of a cluster, and the operator's actions until rest. One file per scenario.

A line that begins with `>` is an event of the cluster; the actions of each reconcile step follow it.
`OPENSEER_REWRITE=1 pytest tests/core/plan/test_transcripts.py` rewrites them; read the difference before you commit it.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from openseer_core.plan.actions import (
    Action,
    Announce,
    ApplyShared,
    CreatePod,
    DeletePod,
    EndSidecars,
    InspectStore,
    ScaleStore,
    Stamp,
)
from openseer_core.plan.observation import PodPhase
from openseer_core.plan.workers import FORCE_SECONDS
from openseer_core.queue.messages import BatchProgress
from tests.core.plan.cluster_model import TICK, Cluster, make_job, serving

FOLDER = Path(__file__).parent / "transcripts"
MOST_STEPS = 12
OWN_STORE = {"url": "redis://redis.example:6379"}


class Story:
    """Runs the lines of one transcript."""

    def __init__(self) -> None:
        self.cluster = Cluster(make_job())
        self.deleted = False

    def play(self, line: str) -> list[str]:
        """The operator's actions after the event of a line, until rest."""
        verb, *arguments = shlex.split(line)
        getattr(self, f"do_{verb}")(*arguments)
        return self._settle()

    def _settle(self) -> list[str]:
        lines: list[str] = []
        for _ in range(MOST_STEPS):
            decided = self.cluster.step()
            lines += [f"{self.cluster.now - 1000:5.0f}s  {text}" for text in described(decided.actions)]
            waits = any(
                pod.leaving or (pod.phase is PodPhase.PENDING and not pod.unschedulable)
                for pod in self.cluster.pods.values()
            )
            if not decided.actions and not (waits and not self.cluster.dead_nodes):
                due = decided.wake_at
                return [*lines, "       at rest" + (f", looks again at {due - 1000:.1f}s" if due is not None else "")]
            if self.cluster.gone:
                return [*lines, "       the job is gone"]
            tries = all(isinstance(each, CreatePod | InspectStore) for each in decided.actions)
            if self.cluster.refusals and tries and not waits:
                return [*lines, "       waits for room"]
            if ScaleStore(1) not in decided.actions:
                self.cluster.tick()
        return [*lines, "       NOT AT REST"]

    # ---- the events, by the first word of a line

    def do_job(self, *arguments: str) -> None:
        """A new job: replicas=N nodes=N own-store max-unavailable=N deadline=N ttl=N restarts=N window=N room=N min=N
        max=N autoscale=SECONDS, which is the target; both windows are half of it."""
        options: dict[str, str] = {}
        for word in arguments:
            name, _, value = word.partition("=")
            options[name] = value
        workers: dict[str, object] = {"replicas": int(options.get("replicas", 2))}
        if "nodes" in options:
            nodes = int(options["nodes"])
            workers["parallelism"] = {"nodes": nodes, "tensor": nodes}
        workers |= {name: int(options[name]) for name in ("min", "max") if name in options}
        if "autoscale" in options:
            target = int(options["autoscale"])
            workers["autoscale"] = {
                "targetSeconds": target,
                "scaleDownSeconds": target // 2,
                "idleSeconds": target // 2,
            }
        spec: dict[str, object] = {"workers": workers}
        if "own-store" in options:
            spec["store"] = OWN_STORE
        if "deadline" in options:
            spec["activeDeadlineSeconds"] = int(options["deadline"])
        if "ttl" in options:
            spec["ttlSecondsAfterFinished"] = int(options["ttl"])
        if "restarts" in options:
            policy = {"workerRestarts": int(options["restarts"])}
            window = {"restartWindowSeconds": int(options["window"])} if "window" in options else {}
            spec["failurePolicy"] = policy | window
        self.cluster = Cluster(make_job(**spec), room=int(options.get("room", 99)))

    def do_serve(self, *arguments: str) -> None:
        """A new job that serves a trainer; the arguments of `job`."""
        self.do_job(*arguments)
        self.cluster.job = serving(self.cluster.job)

    def do_release(self) -> None:
        """The trainer takes the GPUs; the workers' pods are removed."""
        self.cluster.released = True

    def do_acquire(self) -> None:
        """The trainer gives the GPUs back."""
        self.cluster.released = False

    def do_scale(self, replicas: str) -> None:
        """Sets the replicas, as `kubectl scale` does."""
        self.cluster.change(workers={"replicas": int(replicas)})

    def do_suspend(self, value: str = "true") -> None:
        """Sets spec.suspend."""
        self.cluster.change(suspend=value == "true")

    def do_template(self, word: str) -> None:
        """A change of the workers' template."""
        self.cluster.change(workers={"template": {"metadata": {"labels": {"word": word}}}})

    def do_busy(self, *arguments: str) -> None:
        """busy worker-0=500: the worker holds 500 tokens."""
        self.cluster.busy = {component: int(tokens) for component, tokens in (word.split("=") for word in arguments)}

    def do_progress(self, done: str, total: str) -> None:
        """`done` of `total` requests are finished; all groups are submitted."""
        self.cluster.progress = BatchProgress(groups=1, requests=int(total), ok=int(done), sealed=True)

    def do_open(self, done: str, total: str, speed: str = "") -> None:
        """`done` of `total` requests are finished, more may follow; a busy worker makes `speed` tokens a second."""
        self.cluster.progress = BatchProgress(groups=1, requests=int(total), ok=int(done))
        self.cluster.worker_speed = float(speed) if speed else self.cluster.worker_speed

    def do_end(self, name: str, code: str, message: str = "") -> None:
        """A process ends with a code and a termination message."""
        self.cluster.end(f"j-{name}", int(code), message)

    def do_end_beside_sidecar(self, name: str, code: str, message: str = "") -> None:
        """A process ends, but another container of its pod runs on."""
        self.cluster.end(f"j-{name}", int(code), message, beside_sidecar=True)

    def do_restarts(self, count: str) -> None:
        """A change of failurePolicy.workerRestarts."""
        self.cluster.change(failurePolicy={"workerRestarts": int(count)})

    def do_deadline(self, limit: str) -> None:
        """A change of activeDeadlineSeconds."""
        self.cluster.change(activeDeadlineSeconds=int(limit))

    def do_revive(self, request: str) -> None:
        """Sets the annotation, as `kubectl annotate --overwrite openseer.dev/revive=…` does."""
        self.cluster.revive = request

    def do_evict(self, name: str) -> None:
        """The node ends the pod."""
        self.cluster.end(f"j-{name}", 137, disrupted=True)

    def do_vanish(self, name: str) -> None:
        """The pod is deleted by a user."""
        del self.cluster.pods[f"j-{name}"]

    def do_sick(self, component: str, reason: str) -> None:
        """The worker reports a sick GPU."""
        self.cluster.sick[component] = reason

    def do_node(self, node: str, word: str) -> None:
        """node n1 dies | lives: the pods of a dead node are deleted, but never confirmed as gone."""
        if word == "lives":
            self.cluster.dead_nodes.discard(node)
            return
        self.cluster.dead_nodes.add(node)
        for name, pod in self.cluster.pods.items():
            if pod.node == node:
                self.cluster.pods[name] = replace(pod, ready=False, gone_by=self.cluster.now + 60)

    def do_refuse(self, name: str, node: str, reason: str) -> None:
        """The kubelet of the node refuses the pod, which was bound to it."""
        self.cluster.refuse(f"j-{name}", node, reason)

    def do_redis(self, *arguments: str) -> None:
        """redis n0: it runs on n0 from now on; redis lost: its deletion is overdue and its node does not answer."""
        (word,) = arguments
        redis = self.cluster.redis
        assert redis is not None
        if word == "lost":
            self.cluster.redis = replace(redis, ready=False, gone_by=self.cluster.now - FORCE_SECONDS)
        else:
            self.cluster.redis = replace(redis, node=word, started_at=self.cluster.now)

    def do_volume(self, risk: str = "") -> None:
        """Sets the reason why the volume of a lost Redis is not safe."""
        self.cluster.volume_risk = risk

    def do_started(self, *components: str) -> None:
        """The nodes of these pods report that they started now."""
        for component in components:
            pod = self.cluster.pods[f"j-{component}"]
            self.cluster.pods[pod.name] = replace(pod, started_at=self.cluster.now)

    def do_full(self, name: str) -> None:
        """No node has room for the pod, which was not placed yet."""
        self.cluster.pods[f"j-{name}"] = replace(
            self.cluster.pods[f"j-{name}"], phase=PodPhase.PENDING, ready=False, node="", unschedulable=True
        )

    def do_room(self, pods: str) -> None:
        """A quota of `pods` pods."""
        self.cluster.room = int(pods)
        self.cluster.place_store()

    def do_store(self, word: str) -> None:
        """store down | up: whether the store answers."""
        self.cluster.store_answers = word == "up"

    def do_wait(self, seconds: str) -> None:
        """Advances the clock by `seconds`."""
        self.cluster.now += int(seconds) - TICK
        self.cluster.tick()

    def do_delete(self) -> None:
        """Deletes the job, as `kubectl delete` does."""
        self.cluster.deleting_since = self.cluster.now
        self.cluster.gone = not self.cluster.finalizer


def described(actions: Sequence[Action]) -> list[str]:
    """Actions in plain English, those of a kind on one line."""
    applied = [action.key for action in actions if isinstance(action, ApplyShared)]
    created = [_created_pod(action) for action in actions if isinstance(action, CreatePod)]
    lines = [_described(action) for action in actions if not isinstance(action, ApplyShared | CreatePod)]
    lines += ["apply " + ", ".join(applied)] if applied else []
    return lines + (["create " + ", ".join(created)] if created else [])


def _described(action: Action) -> str:
    match action:
        case Announce(warning, reason, message, node):
            return f"{'WARN' if warning else 'say'} {reason}: {message}" + (f" [{node}]" if node else "")
        case DeletePod(name, _, reason, force):
            return f"delete {name}{' by force' if force else ''}: {reason}"
        case Stamp(name, _, busy):
            return f"stamp {name} {'busy' if busy else 'idle'}"
        case ScaleStore(replicas):
            return f"store {'on' if replicas else 'off'}"
        case EndSidecars(name):
            return f"end what else runs in {name}"
        case _:
            return type(action).__name__


def _created_pod(action: CreatePod) -> str:
    name = "driver" if action.index is None else f"worker-{action.index}"
    rank = f"/{action.rank}" if action.rank else ""
    attempt = f" (attempt {action.attempt + 1})" if action.attempt else ""
    avoid = f" (not on {', '.join(action.avoid)})" if action.avoid else ""
    return name + rank + attempt + avoid


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_actions_equal_the_transcript(path: Path) -> None:
    story, found = Story(), list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            found.append(line)
        elif line.startswith("> "):
            found += [line, *story.play(line.removeprefix("> "))]
    text = "\n".join(found) + "\n"
    assert "NOT AT REST" not in text
    if os.environ.get("OPENSEER_REWRITE"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text
