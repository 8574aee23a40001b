"""Access to a cluster with kubectl, and functions for the tests' frequent operations."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from tests.cluster.support.reads import Reads
from tests.repository import ROOT

CLUSTER = ROOT / "cluster" / "cluster.sh"
POLL_SECONDS = 0.25
"""Poll interval of `wait_until`, in seconds."""
WAIT_SECONDS = 300.0
"""Default timeout, in seconds: pods that usually start in seconds take minutes when engines use all cores."""
WITHIN = f"--timeout={WAIT_SECONDS:.0f}s"
"""WAIT_SECONDS as an option of `kubectl wait` and `kubectl rollout status`."""
CALL_SECONDS = WAIT_SECONDS + 60
"""Timeout of one kubectl process, in seconds."""

OPERATOR_IMAGE = "localhost/openseer-operator:test"
SCRIPTED_IMAGE = "localhost/openseer-worker:scripted"
CPU_IMAGE = "localhost/openseer-worker:cpu"


class KubeError(AssertionError):
    """kubectl or cluster.sh failed; the message contains its output."""


class Kube:
    """One cluster, as a context manager that stops the proxy for reads at its end. `owner`: a user (KUBECONFIG), a
    developer (cluster.sh up) or these tests."""

    def __init__(self, owner: Literal["user", "developer", "tests"]) -> None:
        self.owner = owner
        self._reads = Reads(self.command("kubectl"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reads.close()

    @property
    def is_ours(self) -> bool:
        """Whether cluster/cluster.sh started the cluster, so that its nodes can be cut off."""
        return self.owner != "user"

    def command(self, *arguments: str) -> list[str]:
        """Command line of a long-running process (an operator) in a network that reaches the cluster."""
        return [str(CLUSTER), "exec", *arguments] if self.is_ours else list(arguments)

    def kubectl(self, *arguments: str, text: str | None = None, seconds: float = CALL_SECONDS) -> str:
        """Runs kubectl and returns its output. `text`: its standard input. Raises KubeError."""
        return _run(self.command("kubectl", *arguments), text, seconds)

    def run(self, *arguments: str, seconds: float = CALL_SECONDS) -> str:
        """Runs another client of the cluster (helm) and returns its output. Raises KubeError."""
        return _run(self.command(*arguments), None, seconds)

    def ask(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs kubectl and returns its exit code and both outputs; a refusal raises nothing."""
        command = self.command("kubectl", *arguments)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)

    def apply(self, manifests: Sequence[str | dict[str, Any]], namespace: str | None = None) -> None:
        """Applies manifests: YAML text or objects. Raises KubeError."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in manifests]
        apply = ("apply", "--server-side", "--force-conflicts", *_within(namespace), "-f", "-")
        self.kubectl(*apply, text="\n---\n".join(texts))

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object. Raises KubeError if it does not exist."""
        found = self._reads.read(kind, name, namespace)
        return found or json.loads(self.kubectl("get", kind, name, *_within(namespace), "-o", "json"))

    def get_list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind, or those that match a label selector; namespace "": of all namespaces."""
        chosen = ["-l", selector] if selector else []
        where = ["--all-namespaces"] if namespace == "" else _within(namespace)
        found = self._reads.read(kind, "", namespace, selector)
        return (found or json.loads(self.kubectl("get", kind, *where, *chosen, "-o", "json")))["items"]

    def condition(self, kind: str, name: str, condition: str, namespace: str | None = None) -> str:
        """The status of one condition: True, False or Unknown; Unknown if the object has no such condition yet."""
        status = self.get(kind, name, namespace).get("status", {})
        found = [each["status"] for each in status.get("conditions", []) if each["type"] == condition]
        return found[0] if found else "Unknown"

    def phase(self, pod: str, namespace: str) -> str:
        """Pending, Running, Succeeded or Failed."""
        return self.get("pod", pod, namespace)["status"].get("phase", "Pending")

    def logs(self, pod: str, namespace: str) -> str:
        """The log of a pod."""
        return self.kubectl("logs", pod, "-n", namespace)

    def finished(self, pod: str, namespace: str, seconds: float = WAIT_SECONDS) -> str:
        """Waits for a pod's end and returns its log. Raises KubeError with the log unless the pod succeeded."""
        wait_until(lambda: self.phase(pod, namespace) in {"Succeeded", "Failed"}, f"pod {pod} has ended", seconds)
        text = self.logs(pod, namespace)
        if self.phase(pod, namespace) != "Succeeded":
            raise KubeError(f"pod {pod} failed; its log:\n{text}")
        return text


def wait_until(
    predicate: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS, story: Callable[[], str] = str
) -> None:
    """Polls until `predicate` is true; a KubeError counts as false. After `seconds`, raises KubeError with `what` and
    the output of `story`, a description of the present state."""
    deadline, trouble = time.monotonic() + seconds, ""
    while True:
        try:
            if predicate():
                return
            trouble = ""
        except KubeError as error:
            trouble = f": {error}"
        if time.monotonic() > deadline:
            raise KubeError(f"not so after {seconds:g} s: {what}{trouble}\n{story()}")
        time.sleep(POLL_SECONDS)


def cluster_sh(*arguments: str, seconds: float = WAIT_SECONDS) -> str:
    """Runs cluster/cluster.sh and returns its output. Raises KubeError."""
    return _run([str(CLUSTER), *arguments], None, seconds)


def restricted_pod(name: str, image: str, *command: str, **spec: Any) -> dict[str, Any]:
    """A pod that the restricted Pod Security level admits, with a read-only root; `spec` adds to its spec."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": list(command),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "tmp", "mountPath": "/tmp"},
                        {"name": "shm", "mountPath": "/dev/shm"},
                        *spec.pop("mounts", []),
                    ],
                }
            ],
            "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
                *spec.pop("volumes", []),
            ],
            **spec,
        },
    }


def _within(namespace: str | None) -> list[str]:
    return ["-n", namespace] if namespace else []


def _run(command: list[str], text: str | None, seconds: float) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as slow:
        raise KubeError(f"{' '.join(command)}: no end after {seconds:g} s") from slow
    if done.returncode:
        raise KubeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
