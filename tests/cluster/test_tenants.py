"""Tenants' namespaces with quotas and occupied names; runs beside the other stories."""

import pytest

from tests.cluster.support.kube import WITHIN, Kube
from tests.cluster.support.stories import story
from tests.cluster.support.workload import COMPLETE_SECONDS, Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@story
def test_a_quota_of_four_pods_does_not_block_a_job_of_six_workers(kube: Kube, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": namespace}}
    kube.apply([{**quota, "spec": {"hard": {"pods": "4"}}}])
    # A minute on two workers, so that its progress can be observed.
    job = Workload(kube, namespace, step=0.06, spec={"workers": {"replicas": 6}}).apply()
    job.until_condition("PodsCreated", "False", "exceeded quota: small")
    job.until(lambda: job.holds("Complete"), "complete", COMPLETE_SECONDS)
    kube.kubectl("delete", "resourcequota", "small", "-n", namespace)  # the pod that reads the results is a fifth one
    job.assert_completes()
    job.until_told("PodsNotCreated")


@story
def test_a_redis_refused_by_the_quota_is_created_when_there_is_room(kube: Kube, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": namespace}}
    kube.apply([{**quota, "spec": {"hard": {"pods": "0"}}}])
    job = Workload(kube, namespace).apply()
    job.until(lambda: "StatefulSet job-redis: " in job.condition("PodsCreated").get("message", ""), "its set says why")
    assert not job.pods()
    kube.kubectl("delete", "resourcequota", "none", "-n", namespace)
    job.assert_completes()


@story
def test_a_job_named_default_leaves_the_namespaces_service_account(kube: Kube, namespace: str) -> None:
    kube.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, WITHIN)
    before = kube.get("serviceaccount", "default", namespace)
    job = Workload(kube, namespace, name="default").apply()
    job.until_condition("NameTaken", "True", ": ServiceAccount default: ")
    kube.kubectl("delete", "rolloutjob", "default", "-n", namespace)
    assert kube.get("serviceaccount", "default", namespace) == before
