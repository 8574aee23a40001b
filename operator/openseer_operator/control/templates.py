"""Checks by dry runs, once per version of a template, that the API server accepts the objects of a job's templates."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.store_url import manages_store, store_name
from openseer_core.plan.observation import TemplateAnswer, TemplateVerdict
from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError
from openseer_operator.kube.owned_objects import MAY_PASS
from openseer_operator.objects.kv_pool import kv_pool_stateful_set
from openseer_operator.objects.managed_redis import store_stateful_set
from openseer_operator.objects.names import digest
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import JobKey, JobRecord, JsonObject
from openseer_operator.settings import OperatorSettings

RECHECK_SECONDS: Mapping[TemplateAnswer, float] = {
    TemplateAnswer.INVALID: 60.0,
    TemplateAnswer.HINDERED: 60.0,
    TemplateAnswer.UNANSWERED: 5.0,
}
"""Seconds until the next check, by verdict; TAKEN (the server accepts the objects) is final."""
UNREADABLE, INVALID = 400, 422
_NOT_DECODED = "cannot be handled as"
"""Part of the server's message about a body that it cannot decode. Status 400 alone is no proof of that: a webhook
without support for dry runs also causes it."""
_OTHERS = ("admission webhook", "ValidatingAdmissionPolicy")
"""Parts of messages of admission plugins. Such a refusal may be temporary; it is reported when pods are created."""
_NOT_TRIED = ("does not support dry run", "exceeded quota")
"""Parts of messages of refusals that are no evidence against a template: a webhook does not support dry runs; or a
quota is full, which Kubernetes checks last, so that all other checks have passed."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A verdict, with the job's uid and generation that it holds for. `tried`: hash of the objects that were checked;
    `asked_at`: time of the check (seconds since the epoch)."""

    uid: str
    generation: int
    tried: str
    verdict: TemplateVerdict
    asked_at: float

    def holds(self, now: float) -> bool:
        """Whether the verdict is still valid."""
        lasts = RECHECK_SECONDS.get(self.verdict.answer)
        return lasts is None or self.asked_at <= now < self.asked_at + lasts


class TemplateChecker:
    """Checks templates. A job without templates causes no call: the CRD's schema has checked all its fields."""

    def __init__(self, api: Api, settings: OperatorSettings) -> None:
        self._api = api
        self._settings = settings
        self._known: dict[JobKey, _Known] = {}

    async def verdict(self, record: JobRecord, job: RolloutJob, now: float) -> TemplateVerdict:
        """The verdict on the first template that the server finds invalid or about which it gives no answer; else on
        the last one that an admission plugin refused; else TAKEN. If the server does not answer, an earlier verdict on
        the same templates stays valid. `now`: seconds since the epoch."""
        known = self._known.get(record.key)
        if known is not None and (known.uid, known.generation) == (record.uid, record.generation) and known.holds(now):
            return known.verdict
        bodies = dict(self._bodies(record, job))
        tried = digest(bodies)
        same = known is not None and (known.uid, known.tried) == (record.uid, tried)
        if known is None or not same or not known.holds(now):
            verdict = await self._ask(record, bodies)
            if known is not None and same and verdict.answer is TemplateAnswer.UNANSWERED:
                verdict = known.verdict
            known = _Known(record.uid, record.generation, tried, verdict, now)
        self._known[record.key] = replace(known, generation=record.generation)
        return known.verdict

    def forget(self, key: JobKey) -> None:
        """Drops the data of a deleted job."""
        self._known.pop(key, None)

    async def _ask(self, record: JobRecord, bodies: Mapping[str, JsonObject]) -> TemplateVerdict:
        """Checks the object of each template by a dry run. `bodies`: the objects by the template's part of the spec."""
        verdict = TemplateVerdict()
        for part, body in bodies.items():
            try:
                await self._api.try_create(body["kind"], record.key[0], body)
            except KubeConflictError:  # the name is in use, or a quota is being updated: all other checks have passed
                continue
            except KubeApiError as error:
                found = TemplateVerdict(_answer(error), f"spec.{part}.template: {error.message}")
                if not found.makes:
                    return found
                if not found.replaces:
                    verdict = found
        return verdict

    def _bodies(self, record: JobRecord, job: RolloutJob) -> Iterator[tuple[str, JsonObject]]:
        """The template's part of the spec and the object made from it, for each of the job's templates."""
        settings, uid, image = self._settings, record.uid, job.spec.image or self._settings.worker_image
        secret = store_name(job)  # the name does not matter for the check
        pods: list[tuple[str, JsonObject]] = []
        if job.spec.workers.template:
            pods.append(("workers", worker_pod(job, uid, settings, image, index=0, rank=0, attempt=0, secret=secret)))
        if job.spec.driver.template and job.spec.mode == "batch":
            pods.append(("driver", driver_pod(job, uid, settings, image, attempt=0, secret=secret)))
        for part, pod in pods:
            # The ServiceAccount is created later. Without it the server would refuse the pod before it checks fields.
            pod["spec"].pop("serviceAccountName", None)
            yield part, pod
        if job.spec.store.template and manages_store(job):
            yield "store", store_stateful_set(job, uid, settings, 1, secret=secret)
        if job.spec.kv_pool.template:
            yield "kvPool", kv_pool_stateful_set(job, uid, settings, runs=True)


def _answer(error: KubeApiError) -> TemplateAnswer:
    if error.status in MAY_PASS:
        return TemplateAnswer.UNANSWERED
    if any(words in error.message for words in _NOT_TRIED):
        return TemplateAnswer.TAKEN
    invalid = error.status == INVALID or (error.status == UNREADABLE and _NOT_DECODED in error.message)
    by_others = any(words in error.message for words in _OTHERS)
    return TemplateAnswer.INVALID if invalid and not by_others else TemplateAnswer.HINDERED
