"""Creates jobs on the scripted engine in a real cluster, waits for their states and reads their output."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from tests.cluster.support.chart import SYSTEM
from tests.cluster.support.kube import (
    CALL_SECONDS,
    OPERATOR_IMAGE,
    SCRIPTED_IMAGE,
    WAIT_SECONDS,
    WITHIN,
    Kube,
    restricted_pod,
    wait_until,
)

GROUP_SIZE = 4
LONG = 120
"""Number of groups of a job that a test observes while it runs: the job lasts longer than its pods take to start."""
COMPLETE_SECONDS = 600.0
"""Timeout of a job's completion, in seconds: far more than any job of the stories takes."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of two maps, in which `changes` replaces values of `base`."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[name] = merged(cast("dict[str, Any]", old), cast("dict[str, Any]", value)) if both else value
    return result


@dataclass
class Workload:
    """One job of a namespace. `groups` × 4 requests of up to `length` tokens; a step takes `step` seconds."""

    kube: Kube
    namespace: str
    name: str = "job"
    groups: int = 12
    length: int = 300
    step: float = 0.004
    spec: dict[str, Any] = field(default_factory=dict[str, Any])
    prompt_text: str = ""

    @property
    def requests(self) -> int:
        """Number of results of the complete job."""
        return self.groups * GROUP_SIZE

    # ---- make and change

    def manifest(self) -> dict[str, Any]:
        """The RolloutJob."""
        base: dict[str, Any] = {
            "model": {
                "path": "none",
                "engine": "scripted",
                "scripted": {"stepSeconds": self.step, "stepSecondsPerRequest": 0.0, "slots": 4},
            },
            "prompts": {"configMap": {"name": f"{self.name}-prompts", "key": "prompts.jsonl"}},
            "groupSize": GROUP_SIZE,
            "sampling": {"maxTokens": 4096, "forceLengths": True},
            "rollout": {"quantumTokens": 32, "leaseSeconds": 4, "checkpointSeconds": 0.2},
            "workers": {
                "replicas": 2,
                "gracePeriodSeconds": 10,
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            },
            "driver": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
            "store": {"resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}},
        }
        return {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": merged(base, self.spec),
        }

    def prompts(self) -> str:
        """The prompt lines: `prompt_text` if given, else lines with lengths that vary and are always the same."""
        if self.prompt_text:
            return self.prompt_text
        lines = [
            {
                "id": f"g{number}",
                "prompt_token_ids": [5, 6, 7, number % 200 + 8],
                "lengths": [1 + (number * 37 + index * 11) % self.length for index in range(GROUP_SIZE)],
            }
            for number in range(self.groups)
        ]
        return "\n".join(map(json.dumps, lines)) + "\n"

    def apply(self) -> "Workload":
        """`kubectl apply` of the prompts and the job."""
        prompts = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{self.name}-prompts", "namespace": self.namespace},
            "data": {"prompts.jsonl": self.prompts()},
        }
        self.kube.apply([prompts, self.manifest()])
        return self

    def patch(self, **spec: Any) -> None:
        """Changes the job's spec with a JSON merge patch."""
        self.kubectl("patch", "rolloutjob", self.name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def hasten(self) -> None:
        """Scales the job to 6 workers, to finish the remaining work sooner."""
        self.kubectl("scale", "rolloutjob", self.name, "--replicas=6")

    def kubectl(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        """Runs kubectl in the job's namespace and returns its output. Raises KubeError."""
        return self.kube.kubectl("--namespace", self.namespace, *arguments, seconds=seconds)

    def refusal(self, *arguments: str) -> str:
        """The error output of kubectl if it fails, else ""."""
        done = self.kube.ask("--namespace", self.namespace, *arguments)
        return done.stderr if done.returncode else ""

    # ---- watch

    def status(self) -> dict[str, Any]:
        """The job's status, {} before there is one. Raises KubeError."""
        return self.kube.get("rolloutjob", self.name, self.namespace).get("status", {})

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition, {} before there is one."""
        nothing: dict[str, Any] = {}
        return next((entry for entry in self.status().get("conditions", []) if entry["type"] == kind), nothing)

    def holds(self, kind: str, reason: str = "") -> bool:
        """Whether a condition is True, with this reason if one is given."""
        found = self.condition(kind)
        return found.get("status") == "True" and reason in ("", found.get("reason"))

    def pods(self, role: str = "worker") -> list[dict[str, Any]]:
        """Pods of the job in that role, sorted by name; terminating ones are included."""
        items = self.kube.get_list("pods", self.namespace, f"openseer.dev/job={self.name},openseer.dev/role={role}")
        return sorted(items, key=lambda pod: pod["metadata"]["name"])

    def live(self, role: str = "worker") -> dict[str, dict[str, Any]]:
        """Pods by name, without those that are being deleted or have ended."""
        return {
            pod["metadata"]["name"]: pod
            for pod in self.pods(role)
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") in ("Pending", "Running")
        }

    def ready(self) -> int:
        """Number of ready workers in the job's status."""
        return self.status().get("workers", {}).get("ready", 0)

    def done(self) -> int:
        """Number of finished requests in the job's status."""
        return self.status().get("progress", {}).get("requestsDone", 0)

    def until(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Waits until `holds` is true. Raises KubeError with the job's state after `seconds`."""
        wait_until(holds, what, seconds, self.story)

    def until_ready(self, workers: int) -> None:
        """Waits until `workers` workers are ready at the same time: the work must last until the last one starts."""
        self.until(lambda: self.ready() == workers, f"{workers} workers ready")

    def until_condition(self, kind: str, status: str, *words: str) -> None:
        """Waits until a condition has this status and contains all the words in its reason or message, in one read:
        before the next read, the job's state may change."""

        def says() -> bool:
            found = self.condition(kind)
            told = f"{found.get('reason')}: {found.get('message')}"
            return found.get("status") == status and all(word in told for word in words)

        self.until(says, f"{kind} is {status}: {', '.join(words)}")

    def until_told(self, *reasons: str, words: str = "") -> None:
        """Waits until the job has events with all these reasons, one of them with the words. The operator writes the
        status before the events."""

        def told() -> bool:
            items = self.kube.get_list("events", self.namespace)
            mine = [entry for entry in items if entry["involvedObject"].get("name") == self.name]
            so = {entry["reason"] for entry in mine if words in entry.get("message", "")}
            return set(reasons) <= {entry["reason"] for entry in mine} and bool(so & set(reasons))

        self.until(told, f"events {', '.join(reasons)} {words}")

    def is_another(self, pod: str, uid: str) -> bool:
        """Whether a live pod has that name and another uid."""
        return self.live().get(pod, {}).get("metadata", {}).get("uid") not in (None, uid)

    def story(self) -> str:
        """Description of the job's state for an error message."""
        return "\n".join(
            self.kube.ask("--namespace", self.namespace, *words).stdout
            for words in (
                ("get", "pods", "--output=wide"),
                ("get", "rolloutjob", self.name, "--output=yaml"),
                ("get", "events", "--sort-by=.lastTimestamp"),
                ("logs", f"{self.name}-driver", "--tail=20"),
            )
        )

    # ---- the end

    def assert_completes(self, seconds: float = COMPLETE_SECONDS) -> None:
        """Asserts that the job completes, every request has one result, and the driver's audit found no problem."""
        self.until(lambda: self.holds("Complete") or self.holds("Failed"), "complete", seconds)
        assert self.holds("Complete"), self.story()
        progress = self.status()["progress"]
        assert (progress["requestsDone"], progress["requestsTotal"]) == (self.requests, self.requests)
        assert progress.get("requestsFailed", 0) == 0
        files = self.read_output()
        keys = [(line["group"], line["index"]) for line in map(json.loads, files["results.jsonl"].splitlines())]
        assert len(keys) == len(set(keys)) == self.requests
        assert json.loads(files["audit.json"])["ok"] is True

    def read_output(self) -> dict[str, str]:
        """Files of the run on the job's volume, read through a pod of the test."""
        claim = self.manifest()["spec"].get("output", {}).get("pvc", {}).get("claimName", f"{self.name}-output")
        name = f"{self.name}-reader"
        mount, volume = {"name": "output", "mountPath": "/output"}, {"persistentVolumeClaim": {"claimName": claim}}
        script = (
            "import json, pathlib\n"
            "found = {p.name: p.read_text() for p in pathlib.Path('/output').rglob('*.json*') if p.is_file()}\n"
            "print(json.dumps(found))"
        )
        volumes = [{"name": "output", **volume}]
        pod = restricted_pod(name, SCRIPTED_IMAGE, "python", "-c", script, mounts=[mount], volumes=volumes)
        self.kube.apply([pod], namespace=self.namespace)
        found: dict[str, str] = json.loads(self.kube.finished(name, self.namespace))
        self.kubectl("delete", "pod", name, "--wait=false")
        return found

    def assert_leaves_nothing(self) -> None:
        """Asserts that after the job's deletion only objects that the user created are left."""
        self.kubectl("delete", "rolloutjob", self.name, WITHIN)
        kinds = "pods,statefulsets,services,secrets,configmaps,persistentvolumeclaims,poddisruptionbudgets,"
        kinds += "networkpolicies,serviceaccounts"
        selector = f"openseer.dev/job={self.name}"
        left: Callable[[], list[str]] = lambda: [  # noqa: E731 - read twice
            f"{entry['kind']}/{entry['metadata']['name']}"
            for entry in self.kube.get_list(kinds, self.namespace, selector)
        ]
        self.until(lambda: not left(), "everything of the job is gone")


def let_openseer_read(kube: Kube, namespace: str, secret: str) -> None:
    """Creates the Role and the RoleBinding that the chart's notes describe."""
    role = f"openseer-{secret}"
    rule = ("--verb=get", "--resource=secrets", f"--resource-name={secret}")
    kube.kubectl("create", "role", role, "-n", namespace, *rule)
    accounts = [f"--serviceaccount={SYSTEM}:{name}" for name in ("openseer", "openseer-api")]
    kube.kubectl("create", "rolebinding", role, "-n", namespace, f"--role={role}", *accounts)


def own_redis(kube: Kube, namespace: str) -> str:
    """Starts a Redis outside of the operator; returns the common name of its pod and of the Secret with its URL."""
    pod = restricted_pod(
        "own-redis", OPERATOR_IMAGE, "redis-server", "--protected-mode", "no", "--save", "", "--dir", "/tmp"
    )
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "own-redis"},
        "spec": {"selector": {"app": "own-redis"}, "ports": [{"port": 6379}]},
    }
    url = f"redis://own-redis.{namespace}.svc:6379/0"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own-redis"}, "stringData": {"url": url}}
    kube.apply([pod, service, secret], namespace)
    kube.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/own-redis", WITHIN)
    return "own-redis"
