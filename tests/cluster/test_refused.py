"""Templates and volumes that Kubernetes refuses: the job shows Kubernetes' message, and a corrected job continues."""

import pytest

from tests.cluster.support.kube import Kube
from tests.cluster.support.stories import story
from tests.cluster.support.workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@story
def test_an_unknown_field_of_a_template_is_named_and_mended(kube: Kube, namespace: str) -> None:
    wrong = {"workers": {"template": {"spec": {"nodeSelectr": {"a": "b"}}}}}
    job = Workload(kube, namespace, spec=wrong).apply()
    job.until_condition("TemplateInvalid", "True", ": spec.workers.template: ", 'unknown field "spec.nodeSelectr"')
    assert not job.pods()
    job.patch(workers={"template": {"spec": {"nodeSelectr": None}}})
    job.assert_completes()
    job.until_condition("TemplateInvalid", "False")


@story
def test_a_volume_that_cannot_grow_is_reported(kube: Kube, namespace: str) -> None:
    # No worker yet: the job must not end, and its volume must exist, until the end of the test.
    job = Workload(kube, namespace, spec={"workers": {"replicas": 0}}).apply()
    job.until(lambda: kube.condition("pod", "job-redis-0", "Ready", namespace) == "True", "Redis is ready")
    job.patch(store={"persistence": {"size": "5Gi"}})
    job.until_condition("VolumeResized", "False", ": data-job-redis-0: ")
    job.patch(store={"persistence": None})
    job.until(lambda: job.holds("VolumeResized"), "nothing more is asked for")
    job.kubectl("scale", "rolloutjob", "job", "--replicas=2")
    job.assert_completes()
