"""Templates and volumes that Kubernetes does not take: its own words are told, and a mended job goes on."""

import pytest

from tests.cluster.support.kube import Kube
from tests.cluster.support.stories import story
from tests.cluster.support.workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@story
def test_an_unknown_field_of_a_template_is_named_and_mended(kube: Kube, namespace: str) -> None:
    wrong = {"workers": {"template": {"spec": {"nodeSelectr": {"a": "b"}}}}}
    job = Workload(kube, namespace, spec=wrong).apply()
    job.until(lambda: job.holds("TemplateInvalid"), "the template is refused")
    assert job.condition("TemplateInvalid")["message"].startswith("spec.workers.template: ")
    assert 'unknown field "spec.nodeSelectr"' in job.condition("TemplateInvalid")["message"]
    assert not job.pods()
    job.patch(workers={"template": {"spec": {"nodeSelectr": None}}})
    job.assert_completes()
    assert job.condition("TemplateInvalid")["status"] == "False"


@story
def test_a_volume_whose_class_allows_no_growth_is_told_of(kube: Kube, namespace: str) -> None:
    job = Workload(kube, namespace, groups=24, length=600, step=0.01).apply()
    job.until(lambda: job.holds("Available"), "workers are ready")
    job.patch(store={"persistence": {"size": "5Gi"}})
    job.until(lambda: job.condition("VolumeResized").get("status") == "False", "the refusal is told")
    assert job.condition("VolumeResized")["message"].startswith("data-job-redis-0: ")
    job.patch(store={"persistence": None})
    job.until(lambda: job.holds("VolumeResized"), "nothing more is asked for")
    job.assert_completes()
