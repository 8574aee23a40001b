"""Installs the operator in a cluster with helm, as a user does."""

from tests.cluster.support.kube import ROOT, WITHIN, Kube

SYSTEM = "openseer-system"


def install(kube: Kube, *values: str) -> None:
    """Installs or upgrades the operator from the repository's chart, and waits until it runs."""
    images = [
        *("--set", "image.repository=localhost/openseer-operator", "--set", "image.tag=test"),
        *("--set", "workerImage.repository=localhost/openseer-worker", "--set", "workerImage.tag=scripted"),
    ]
    chart = str(ROOT / "charts/openseer")
    kube.run("helm", "upgrade", "--install", "openseer", chart, "-n", SYSTEM, "--create-namespace", *images, *values)
    kube.kubectl("rollout", "status", "deployment", "-n", SYSTEM, WITHIN)
