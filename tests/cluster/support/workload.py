"""Jobs on the scripted engine in a real cluster: made, watched, and looked into."""

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
"""Groups of a job that is looked at while it runs, and not to its end: they last longer than any of its pods takes."""
COMPLETE_SECONDS = 600.0
"""Far more than any job of the stories takes: it ends a wait for what will not come."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, map by map."""
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
        """Results that there must be in the end."""
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
        """The prompt lines: `prompt_text` where it is given; else lengths are spread and always the same."""
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
        """Changes the job's spec, a JSON merge patch."""
        self.kubectl("patch", "rolloutjob", self.name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def hasten(self) -> None:
        """More workers for what is left of work that was long enough for pods that come late."""
        self.kubectl("scale", "rolloutjob", self.name, "--replicas=6")

    def kubectl(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        """kubectl in the job's namespace; what it prints. Raises KubeError."""
        return self.kube.kubectl("--namespace", self.namespace, *arguments, seconds=seconds)

    def refusal(self, *arguments: str) -> str:
        """What kubectl says when it fails, "" when it does not."""
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
        """Whether a condition is True (for this reason)."""
        found = self.condition(kind)
        return found.get("status") == "True" and reason in ("", found.get("reason"))

    def pods(self, role: str = "worker") -> list[dict[str, Any]]:
        """Pods of the job in that role, by name; those that leave are among them."""
        items = self.kube.get_list("pods", self.namespace, f"openseer.dev/job={self.name},openseer.dev/role={role}")
        return sorted(items, key=lambda pod: pod["metadata"]["name"])

    def live(self, role: str = "worker") -> dict[str, dict[str, Any]]:
        """Pods by name that nobody asked to go and that have not ended."""
        return {
            pod["metadata"]["name"]: pod
            for pod in self.pods(role)
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") in ("Pending", "Running")
        }

    def ready(self) -> int:
        """Workers that take requests, as the status says."""
        return self.status().get("workers", {}).get("ready", 0)

    def done(self) -> int:
        """Requests finished, as the status says."""
        return self.status().get("progress", {}).get("requestsDone", 0)

    def until(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Waits for something that must come true; says how the job stands when it does not."""
        wait_until(holds, what, seconds, self.story)

    def until_ready(self, workers: int) -> None:
        """Waits until so many workers take requests, all at one time: the work must last until the last of them is
        there."""
        self.until(lambda: self.ready() == workers, f"{workers} workers ready")

    def until_condition(self, kind: str, status: str, *words: str) -> None:
        """Waits until a condition has this status and says, in its reason or message, all the words: at one look, as
        the next one may find the job further on."""

        def says() -> bool:
            found = self.condition(kind)
            told = f"{found.get('reason')}: {found.get('message')}"
            return found.get("status") == status and all(word in told for word in words)

        self.until(says, f"{kind} is {status}: {', '.join(words)}")

    def until_told(self, *reasons: str, words: str = "") -> None:
        """Waits for events on the job with all these reasons, one of them with the words. The operator writes the
        status first."""

        def told() -> bool:
            items = self.kube.get_list("events", self.namespace)
            mine = [entry for entry in items if entry["involvedObject"].get("name") == self.name]
            so = {entry["reason"] for entry in mine if words in entry.get("message", "")}
            return set(reasons) <= {entry["reason"] for entry in mine} and bool(so & set(reasons))

        self.until(told, f"events {', '.join(reasons)} {words}")

    def is_another(self, pod: str, uid: str) -> bool:
        """Whether the pod of that name lives and is not the one with this uid."""
        return self.live().get(pod, {}).get("metadata", {}).get("uid") not in (None, uid)

    def story(self) -> str:
        """What a person would look at."""
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
        """The job completes, every request has one result, and the driver's audit found nothing."""
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
        """Files of the run on the job's volume, read through a pod of the user's own."""
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
        """After its deletion nothing of the job is left but what the user made."""
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
    """The Role and its binding that the chart's notes tell a namespace to make."""
    role = f"openseer-{secret}"
    rule = ("--verb=get", "--resource=secrets", f"--resource-name={secret}")
    kube.kubectl("create", "role", role, "-n", namespace, *rule)
    accounts = [f"--serviceaccount={SYSTEM}:{name}" for name in ("openseer", "openseer-api")]
    kube.kubectl("create", "rolebinding", role, "-n", namespace, f"--role={role}", *accounts)


def own_redis(kube: Kube, namespace: str) -> str:
    """A Redis that a user runs beside the jobs; gives the name of its pod and of the Secret with its URL."""
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
