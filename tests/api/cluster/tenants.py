"""The gateway's users: jobs, and trainers with a token for one of them."""

import json
from pathlib import Path
from typing import Any

from tests.operator.control_plane import ControlPlane

Json = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Tenant:
    """A trainer's ServiceAccount, with rights on the batches of one job."""

    def __init__(self, plane: ControlPlane, namespace: str, job: str, *verbs: str) -> None:
        self._plane = plane
        self.namespace, self.job = namespace, job
        self._core = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        make(plane, self._core, {"metadata": {"name": job}})
        rule = {"apiGroups": ["openseer.dev"], "resources": ["rolloutjobs/batches"], "resourceNames": [job]}
        roles = f"{RBAC}/namespaces/{namespace}"
        make(plane, f"{roles}/roles", {"metadata": {"name": job}, "rules": [{**rule, "verbs": list(verbs)}]})
        binding = {
            "metadata": {"name": job},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": job},
            "subjects": [{"kind": "ServiceAccount", "name": job, "namespace": namespace}],
        }
        make(plane, f"{roles}/rolebindings", binding)

    def token(self, **spec: Any) -> str:
        """A new token, as a pod would get it."""
        return make(self._plane, f"{self._core}/{self.job}/token", {"spec": spec})["status"]["token"]


class Reader:
    """A user with the right to get RolloutJobs of a namespace and no other right; `kubeconfig` is that user's."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        account, roles = f"/api/v1/namespaces/{namespace}/serviceaccounts", f"{RBAC}/namespaces/{namespace}"
        make(plane, account, {"metadata": {"name": "reader"}})
        rule = {"apiGroups": ["openseer.dev"], "resources": ["rolloutjobs"], "verbs": ["get", "list"]}
        make(plane, f"{roles}/roles", {"metadata": {"name": "reader"}, "rules": [rule]})
        binding = {
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
        }
        make(plane, f"{roles}/rolebindings", binding)
        token = make(plane, f"{account}/reader/token", {"spec": {}})["status"]["token"]
        self.kubeconfig = plane.kubeconfig_of(token, folder / f"{namespace}.kubeconfig")


def set_status(plane: ControlPlane, namespace: str, name: str, **status: Any) -> None:
    """Writes a job's status as the operator does."""
    path = f"/apis/openseer.dev/v1alpha1/namespaces/{namespace}/rolloutjobs/{name}/status"
    plane.request(path, json.dumps({"status": status}).encode(), "PATCH", "application/merge-patch+json")


def make(plane: ControlPlane, path: str, body: Json) -> Json:
    return json.loads(plane.request(path, json.dumps(body).encode()))


def make_job(plane: ControlPlane, namespace: str, name: str, **spec: Any) -> None:
    body = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name},
        "spec": {"mode": "serve", "model": {"path": "m"}, **spec},
    }
    make(plane, f"/apis/openseer.dev/v1alpha1/namespaces/{namespace}/rolloutjobs", body)


def delete_job(plane: ControlPlane, namespace: str, name: str) -> None:
    plane.request(f"/apis/openseer.dev/v1alpha1/namespaces/{namespace}/rolloutjobs/{name}", None, "DELETE")
