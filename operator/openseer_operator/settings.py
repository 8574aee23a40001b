"""The operator's settings, from environment variables that the chart sets."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openseer_core.errors import InputError
from openseer_operator.pod_settings import JobPodSettings, read_pod_settings
from openseer_process.store_access import StoreAccess

FIELD_MANAGER = "openseer-operator"
"""Name of the operator as the manager of fields that it writes (server-side apply)."""
FINALIZER = "openseer.dev/store"
"""Finalizer of jobs with a Redis of the user's own: their keys in it must be deleted before the job."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """The settings of one operator.

    `namespace`: the operator's own namespace; `watched`: the namespaces of jobs, empty for all namespaces.
    `worker_image`: default image of workers and drivers; `store_image`: image of the managed Redis; `pull_policy`: pull
    policy of both images, "" for Kubernetes' default; `pull_secrets`: Secrets in the operator's namespace for
    the image of node probes. `lease`: name of the Lease for leader election; `identity`: name of this replica.
    `http_port`: port of health and metrics. `status_writes`, `stamps`: limits of writes of statuses and stamps, per
    second over all jobs. `node_condition`: type of the condition that is set to False on a node with a sick GPU, "" for
    none; `probe_runtime_class`: runtime class of node probes, "" for the default. `network_policies`: whether each job
    gets a NetworkPolicy; `metrics_from`: permitted readers of its metrics, as entries of the policy's `from`; `egress`:
    permitted destinations in addition to the job and DNS, as entries of the policy's `egress`, None for all
    destinations. `stores`: access to the jobs' stores. `pods`: an admin's settings of the objects of all jobs.
    """

    namespace: str
    worker_image: str
    store_image: str
    watched: tuple[str, ...] = ()
    pull_policy: str = ""
    pull_secrets: tuple[dict[str, Any], ...] = ()
    lease: str = "openseer-operator"
    identity: str = ""
    http_port: int = 8080
    node_condition: str = ""
    probe_runtime_class: str = ""
    network_policies: bool = True
    metrics_from: tuple[dict[str, Any], ...] = ()
    egress: tuple[dict[str, Any], ...] | None = None
    stores: StoreAccess = field(default_factory=lambda: StoreAccess(Path()))
    status_writes: float = 10.0
    stamps: float = 10.0
    pods: JobPodSettings = field(default_factory=JobPodSettings)

    @staticmethod
    def read(environment: Mapping[str, str] = os.environ) -> "OperatorSettings":
        """Reads the OPENSEER_* variables. Raises InputError with the name of a missing or invalid variable."""

        def required(name: str) -> str:
            value = environment.get(name, "")
            if not value:
                raise InputError(f"{name}: missing; the chart sets it on the operator's Deployment")
            return value

        def number(name: str, default: float) -> float:
            text = environment.get(name, "")
            try:
                return float(text) if text else default
            except ValueError as error:
                raise InputError(f"{name}: found {text!r}, allowed: a number") from error

        def entries(name: str) -> tuple[dict[str, Any], ...] | None:
            text = environment.get(name, "")
            try:
                return tuple(json.loads(text)) if text else None
            except (ValueError, TypeError) as error:
                raise InputError(f"{name}: found {text!r}, allowed: a list in JSON") from error

        return OperatorSettings(
            namespace=required("OPENSEER_NAMESPACE"),
            worker_image=required("OPENSEER_WORKER_IMAGE"),
            store_image=required("OPENSEER_STORE_IMAGE"),
            watched=tuple(filter(None, environment.get("OPENSEER_WATCH_NAMESPACES", "").split(","))),
            pull_policy=environment.get("OPENSEER_PULL_POLICY", ""),
            pull_secrets=entries("OPENSEER_PULL_SECRETS") or (),
            lease=environment.get("OPENSEER_LEASE", "openseer-operator"),
            identity=environment.get("OPENSEER_IDENTITY", environment.get("HOSTNAME", "operator")),
            http_port=int(number("OPENSEER_HTTP_PORT", 8080)),
            node_condition=environment.get("OPENSEER_NODE_CONDITION", ""),
            probe_runtime_class=environment.get("OPENSEER_PROBE_RUNTIME_CLASS", ""),
            network_policies=environment.get("OPENSEER_NETWORK_POLICIES", "true") != "false",
            metrics_from=entries("OPENSEER_JOB_METRICS_FROM") or (),
            egress=entries("OPENSEER_JOB_EGRESS"),
            stores=StoreAccess.read(environment),
            status_writes=number("OPENSEER_STATUS_WRITES_PER_SECOND", 10.0),
            stamps=number("OPENSEER_STAMPS_PER_SECOND", 10.0),
            pods=read_pod_settings("OPENSEER_JOBS", environment.get("OPENSEER_JOBS", "")),
        )
