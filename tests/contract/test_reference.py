"""docs/kubernetes-reference.md has every condition, reason and event that the code can write."""

import re

from openseer_operator.objects.conditions import KINDS
from tests.contract.forms.scanning import texts
from tests.repository import ROOT

PAGE = (ROOT / "docs" / "kubernetes-reference.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([A-Za-z_]+)`", PAGE))
OF_KUBERNETES = {
    *("Accept", "All", "AlreadyExists", "Always", "AlwaysAllow", "Apply", "Background", "BearerToken", "ClusterIP"),
    *("ConfigMap", "ContainerCreating", "ContainersReady", "Date", "Delete", "DeleteOptions", "Deployment"),
    *("DisruptionTarget", "Egress", "Event", "Exists", "FallbackToLogsOnError", "False", "IfNotPresent", "In"),
    *("Ingress", "Lease"),
    *("Memory", "NetworkPolicy", "Never", "NoExecute", "NoSchedule", "Node", "None", "Normal", "NotIn", "OnDelete"),
    *("OnRootMismatch", "Opaque", "OutOf", "Parallel", "Pending", "PersistentVolume", "PersistentVolumeClaim", "Pod"),
    *("PodDisruptionBudget", "PodInitializing", "PodScheduled", "ReadWriteOnce", "ReadWriteOncePod", "Retain"),
    *("RuntimeDefault", "Secret", "Service", "ServiceAccount", "StatefulSet", "Strict", "Succeeded"),
    *("TopologyAffinityError", "True", "UnexpectedAdmissionError", "Unknown", "Update", "ValidatingAdmissionPolicy"),
    "Warning",
}
"""Kinds, field values and reasons that Kubernetes defines."""
OF_THE_MANIFEST = {"Count", "FailJob", "Ignore", "Infinity", "NaN", "RolloutJob"}


def test_every_condition_reason_and_event_is_explained() -> None:
    said = set(texts(r"[A-Z][a-z]+([A-Z][A-Za-z]*)*", "core/openseer_core", "operator"))
    said |= set(texts(r"Store[A-Z][A-Za-z]+Forbidden", "process"))
    assert {*KINDS, "StoreHostForbidden", "StoreSecretForbidden", "ScaledUp", "AllReported"} <= said
    assert sorted(said - OF_KUBERNETES - OF_THE_MANIFEST - NAMED) == []
