"""The chart is upgraded under a running job and uninstalled."""

import pytest
import yaml

from tests.cluster.support.chart import install
from tests.cluster.support.kube import ROOT, SCRIPTED_IMAGE, Kube
from tests.cluster.support.workload import Workload

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800, func_only=True)]


def test_a_running_job_survives_an_upgrade_with_its_workers_and_its_image(
    kube: Kube, namespace: str, operator: str
) -> None:
    # Three minutes on two workers, longer than the upgrade.
    job = Workload(kube, namespace, groups=20, length=600, step=0.06).apply()
    job.until_ready(2)
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()}
    try:
        # A later version: its operator is another process, and new jobs get another image.
        install(kube, "--set", "workerImage.tag=later", "--set-string", "podAnnotations.version=later")
        assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()} == before
        job.kubectl("delete", "pod", "job-worker-1", "--wait=false")
        job.until(lambda: job.is_another("job-worker-1", before["job-worker-1"]), "the new operator replaced it")
        job.hasten()
        images = {pod["spec"]["containers"][0]["image"] for pod in job.live().values()}
        assert images == {SCRIPTED_IMAGE}
        job.assert_completes()
    finally:
        install(kube)


def test_the_definition_is_upgraded_with_the_chart(kube: Kube, operator: str) -> None:
    # As installed by an older chart: without a column of the present one.
    kube.kubectl(
        *("patch", "crd", "rolloutjobs.openseer.dev", "--type=json", "--patch"),
        '[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]',
    )
    install(kube)
    here = yaml.safe_load((ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8"))
    there = kube.get("crd", "rolloutjobs.openseer.dev")
    columns = [column["name"] for column in there["spec"]["versions"][0]["additionalPrinterColumns"]]
    assert columns == [column["name"] for column in here["spec"]["versions"][0]["additionalPrinterColumns"]]
