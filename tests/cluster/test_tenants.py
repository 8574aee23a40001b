"""Other people's namespaces: quotas, and names that are taken; side by side with the other stories."""

import pytest

from tests.cluster.support.kube import Kube
from tests.cluster.support.stories import story
from tests.cluster.support.workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@story
def test_a_quota_of_four_pods_holds_no_job_of_six_workers_up(kube: Kube, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": namespace}}
    kube.apply([{**quota, "spec": {"hard": {"pods": "4"}}}])
    job = Workload(kube, namespace, spec={"workers": {"replicas": 6}}).apply()
    job.until(lambda: job.condition("PodsCreated").get("status") == "False", "the refusal is told")
    assert "exceeded quota: small" in job.condition("PodsCreated")["message"]
    job.assert_completes()
    assert "PodsNotCreated" in job.events()


@story
def test_a_redis_that_the_quota_left_out_comes_when_there_is_room(kube: Kube, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": namespace}}
    kube.apply([{**quota, "spec": {"hard": {"pods": "0"}}}])
    job = Workload(kube, namespace).apply()
    job.until(lambda: "StatefulSet job-redis: " in job.condition("PodsCreated").get("message", ""), "its set says why")
    assert not job.pods()
    kube.kubectl("delete", "resourcequota", "none", "-n", namespace)
    job.assert_completes()


@story
def test_a_job_named_default_leaves_the_namespaces_service_account(kube: Kube, namespace: str) -> None:
    kube.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")
    before = kube.get("serviceaccount", "default", namespace)
    job = Workload(kube, namespace, name="default").apply()
    job.until(lambda: job.condition("NameTaken").get("status") == "True", "the name is told")
    assert job.condition("NameTaken")["message"].startswith("ServiceAccount default: ")
    kube.kubectl("delete", "rolloutjob", "default", "-n", namespace)
    assert kube.get("serviceaccount", "default", namespace) == before
