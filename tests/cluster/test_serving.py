"""Trainers in a cluster: a gateway installed from the chart, serving jobs, and tokens that each admit one job.

Workers play the scripted engine; all else is real: nodes, tokens, reviews, Redis, gateway, operator.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.support.chart import SYSTEM
from tests.cluster.support.kube import Kube
from tests.cluster.support.serving import API_LABELS, ServingJob, Trainer
from tests.cluster.support.stories import story

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TRAIN_SECONDS = 600.0
"""The longest that a trainer's script may take beside what kills workers and gateways."""
ITERATION = """
batch = client.open_batch(BatchSpec(group_size=4), key="iteration-1")
batch.submit(Group(id=f"g{n}", prompt_token_ids=[5, 6, 7, n]) for n in range(GROUPS))
batch.seal()
items = list(batch.results(acknowledge=True))
results = [item for item in items if isinstance(item, ResultItem)]
print(json.dumps({
    "keys": [f"{result.group}/{result.index}" for result in results],
    "status": sorted({result.status for result in results}),
    "lengths": sorted(len(result.token_ids) for result in results),
    "whole": sum(item.whole for item in items if isinstance(item, GroupItem)),
    "state": batch.status().state,
    "left": len(client.batches()),
}))
"""
PUBLISH = """
import functools, http.server, numpy, socket, threading, time
from safetensors.numpy import save_file

GO = Path("/tmp/go")

class Held(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        for second in range(250):
            if GO.exists():
                break
            time.sleep(1)
            if second % 5 == 4:  # a worker gives up a server that says nothing
                self.wfile.write(b"HTTP/1.1 102 Processing\\r\\n\\r\\n")
        super().do_GET()

    def log_message(self, *_):
        pass

folder = Path("/tmp/v2")
folder.mkdir(exist_ok=True)
save_file({"w": numpy.zeros((4, 4), numpy.float32)}, str(folder / "model.safetensors"))
server = http.server.ThreadingHTTPServer(("", 8000), functools.partial(Held, directory=str(folder)))
threading.Thread(target=server.serve_forever, daemon=True).start()
source = Source(url=f"http://{socket.gethostbyname(socket.gethostname())}:8000")
done = client.publish(Publish(version="v2", source=source, on_failure="replace"))
batch = client.open_batch(BatchSpec(group_size=4))
batch.submit(Group(id=f"g{n}", prompt_token_ids=[5, 6, 7, n]) for n in range(4))
batch.seal()
results = [item for item in batch.results(acknowledge=True) if isinstance(item, ResultItem)]
print(json.dumps({
    "phase": done.phase,
    "version": client.weights().version,
    "results": len(results),
    "versions": sorted({span.version for result in results for span in result.versions}),
}))
"""
PROBE = """
import time

def status(url, token, method="GET", path="/v1/job"):
    # The stories beside this one kill the gateway.
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    for _ in range(60):
        try:
            answer = httpx.request(method, url + path, headers=headers, timeout=20).status_code
            if answer < 500:
                return answer
        except httpx.TransportError:
            pass
        time.sleep(1)
"""


def iteration(trainer: Trainer, groups: int) -> None:
    """Submits, reads and acknowledges a batch of `groups` groups; asserts that it has every response once."""
    said = json.loads(trainer.run(f"GROUPS = {groups}\n{ITERATION}", TRAIN_SECONDS))
    expected = {f"g{number}/{index}" for number in range(groups) for index in range(4)}
    assert (set(said["keys"]), len(said["keys"])) == (expected, len(expected))
    assert (said["status"], said["whole"]) == (["ok"], groups)
    assert said["lengths"][0] > 0
    assert (said["state"], said["left"]) == ("acknowledged", 0)


@story
def test_a_batch_completes_through_the_gateway_while_pods_are_killed(kube: Kube, namespace: str) -> None:
    job = ServingJob(kube, namespace, step=0.15).apply()  # over a minute of work, so that its progress is observed
    trainer = Trainer(kube, namespace).start()
    job.until_ready(2)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(iteration, trainer, 16)
        job.until(lambda: job.done() > 4, "some responses are finished")
        kube.kubectl("delete", "pod", "-n", SYSTEM, "-l", API_LABELS, "--grace-period=0", "--force")
        training.result(TRAIN_SECONDS)
    job.until(
        lambda: job.status().get("progress", {}).get("requestsTotal") == 0, "an acknowledged batch is counted no more"
    )
    job.until(lambda: job.holds("Ready", "WorkersReady"), "the job is ready for more")
    job.assert_leaves_nothing()


@story
def test_a_token_opens_its_own_job_and_reveals_no_other(kube: Kube, namespace: str) -> None:
    job = ServingJob(kube, namespace, spec={"workers": {"replicas": 1}}).apply()
    other = ServingJob(kube, namespace, name="other", spec={"workers": {"replicas": 1}}).apply()
    own = Trainer(kube, namespace).start()
    reader = Trainer(kube, namespace, name="reader", verbs=("get",)).start()
    job.until_ready(1)
    other.until_ready(1)
    asked = f"""
token, own, other, none = TOKEN.read_text(), {own.url()!r}, {own.url("other")!r}, {own.url("none")!r}
print(json.dumps([
    status(own, token), status(other, token), status(none, token), status(own.replace({namespace!r}, "default"), token),
    status(own, None), status(own, "garbage"), status(other, None),
    status(other, token, "POST", "/v1/batches"), status(other, token, "GET", "/v1/batches/1/results"),
]))
"""
    found = json.loads(own.run(PROBE + asked))
    assert found == [200, 403, 403, 403, 401, 401, 401, 403, 403]
    asked = f"""
token, url = TOKEN.read_text(), {own.url()!r}
print(json.dumps([status(url, token), status(url, token, "POST", "/v1/release")]))
"""
    assert json.loads(reader.run(PROBE + asked)) == [200, 403]
    job.kubectl("delete", "rolloutjob", "job", "other", "--wait=false")


@story
def test_released_gpus_have_no_worker_until_they_are_acquired(kube: Kube, namespace: str) -> None:
    job = ServingJob(kube, namespace, step=0.004).apply()
    trainer = Trainer(kube, namespace).start()
    job.until_ready(2)
    assert trainer.run('print(client.release(Release(mode="stop"), patience=250).state)').split() == ["released"]
    job.until(lambda: not job.pods(), "no worker is left")
    job.until(lambda: job.status().get("reason") == "Released", "the status says so")
    assert trainer.run("print(client.acquire(patience=250).state)").split() == ["awake"]
    job.until_ready(2)
    iteration(trainer, 4)
    job.assert_leaves_nothing()


@story
def test_a_job_scales_to_zero_and_up_again_for_the_next_batch(kube: Kube, namespace: str) -> None:
    workers = {"replicas": 1, "max": 2, "autoscale": {"targetSeconds": 60, "scaleDownSeconds": 5, "idleSeconds": 10}}
    job = ServingJob(kube, namespace, step=0.004, spec={"workers": workers}).apply()
    trainer = Trainer(kube, namespace).start()
    job.until(lambda: job.status().get("workers", {}).get("desired") == 0, "an idle job wants no worker")
    job.until(lambda: not job.pods(), "no worker is left")
    assert "replicas is fixed" in job.refusal("scale", "rolloutjob", "job", "--replicas=2")
    iteration(trainer, 4)
    job.until_told("ScaledUp", "ScaledDown")
    job.until(lambda: not job.pods(), "no worker is left after it either")
    job.assert_leaves_nothing()


@story
def test_new_weights_reach_every_worker_despite_two_deaths(kube: Kube, namespace: str) -> None:
    job = ServingJob(kube, namespace, step=0.004).apply()
    trainer = Trainer(kube, namespace).start()
    job.until_ready(2)
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(trainer.run, PUBLISH, TRAIN_SECONDS)
        phase = "found = client.weights().transaction\nprint(found.phase if found else '')"
        job.until(lambda: trainer.run(phase).strip() == "prefetch", "the transaction has begun")
        job.kubectl("delete", "pod", "job-worker-1", "--grace-period=0", "--force")
        kube.kubectl("delete", "pod", "-n", SYSTEM, "-l", API_LABELS, "--grace-period=0", "--force")
        # No worker had the file so far, so both died within the transaction, on a machine of any speed.
        job.kubectl("exec", "trainer", "--", "touch", "/tmp/go")
        said = json.loads(publishing.result(TRAIN_SECONDS))
    assert said == {"phase": "done", "version": "v2", "results": 16, "versions": ["v2"]}
    job.until_ready(2)
    job.assert_leaves_nothing()
