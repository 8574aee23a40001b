"""A job of mode serve, and a trainer's pod with the client and a ServiceAccount that may use only that job."""

from dataclasses import dataclass
from typing import Any

from tests.cluster.support.chart import SYSTEM
from tests.cluster.support.kube import OPERATOR_IMAGE, WAIT_SECONDS, WITHIN, Kube, restricted_pod
from tests.cluster.support.workload import Workload

API = f"http://openseer-api.{SYSTEM}.svc"
API_LABELS = "app.kubernetes.io/component=api"
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class ServingJob(Workload):
    """A job with two workers on the scripted engine, which draws lengths with a median of a sixth of max_tokens."""

    def manifest(self) -> dict[str, Any]:
        manifest = super().manifest()
        spec = manifest["spec"]
        for name in ("prompts", "driver"):
            del spec[name]
        spec |= {"mode": "serve", "sampling": {"maxTokens": 400}, **self.spec}
        return manifest

    def apply(self) -> "ServingJob":
        self.kube.apply([self.manifest()])
        return self


@dataclass
class Trainer:
    """A pod with the RBAC rights `verbs` on the batches of `job`; it runs Python scripts, in which `client` and the
    names of openseer_client are defined."""

    kube: Kube
    namespace: str
    job: str = "job"
    name: str = "trainer"
    verbs: tuple[str, ...] = ("get", "update")

    def start(self) -> "Trainer":
        """Creates the account, its role and the pod, and waits until the pod is ready."""
        rule = {"apiGroups": ["openseer.dev"], "resources": ["rolloutjobs/batches"], "resourceNames": [self.job]}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.name}
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}
        pod = restricted_pod(self.name, OPERATOR_IMAGE, "sleep", "3600", serviceAccountName=self.name)
        pod["spec"]["automountServiceAccountToken"] = True
        rbac = "rbac.authorization.k8s.io/v1"
        meta = {"name": self.name}
        objects: list[dict[str, Any]] = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {"apiVersion": rbac, "kind": "Role", "metadata": meta, "rules": [{**rule, "verbs": list(self.verbs)}]},
            {"apiVersion": rbac, "kind": "RoleBinding", "metadata": meta, "roleRef": reference, "subjects": [subject]},
            pod,
        ]
        self.kube.apply(list[str | dict[str, Any]](objects), self.namespace)
        ready = ("--for=condition=Ready", f"pod/{self.name}", WITHIN)
        self.kube.kubectl("wait", "-n", self.namespace, *ready)
        return self

    def url(self, job: str | None = None, namespace: str | None = None) -> str:
        """URL of a job's API; by default of this trainer's job and namespace."""
        return f"{API}/jobs/{namespace or self.namespace}/{job or self.job}"

    def run(self, script: str, seconds: float = WAIT_SECONDS) -> str:
        """Runs a script and returns its output. Raises KubeError if it fails."""
        head = (
            "import json, httpx\nfrom pathlib import Path\nfrom openseer_client import *\n"
            f"TOKEN = Path({_TOKEN!r})\nclient = Client({self.url()!r}, token_file=TOKEN)\n"
        )
        command = ("exec", "-n", self.namespace, self.name, "--", "python", "-c", head + script)
        return self.kube.kubectl(*command, seconds=seconds)
