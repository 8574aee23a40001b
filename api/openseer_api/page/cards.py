"""All jobs at a glance: each that the viewer may read has a card, whatever becomes of its store."""

import asyncio
import logging
from collections.abc import Sequence

from openseer_api.http.auth import Authenticator, Forbidden
from openseer_api.job.context import UnopenedJob
from openseer_api.page.shown import Listed
from openseer_core.errors import OpenseerError
from openseer_core.manifest.generation import JobMode
from openseer_core.wire.page import MOST_JOBS, JobCard, JobCards

CARD_SECONDS = 2.0
"""Longest wait for one job's card: a store that hangs holds up the view of all others for so long."""
CHECKS = 16
"""Rights that are asked for at once."""
SILENT = "the store does not answer"

log = logging.getLogger(__name__)


class NotOpen:
    """A job that this server cannot open."""

    def __init__(self, job: UnopenedJob) -> None:
        self._job = job

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        return self._job.namespace, self._job.name

    @property
    def mode(self) -> JobMode:
        """Of the job."""
        return self._job.mode

    async def card(self) -> JobCard:
        """Why it is not open."""
        return _unknown(self, self._job.reason)


async def cards(auth: Authenticator, token: str | None, jobs: Sequence[Listed]) -> JobCards:
    """Jobs that the token may read, by namespace and name. Raises Unauthenticated; AuthUnavailable while it is not
    known what the token may do."""
    jobs, allowed = sorted(jobs, key=lambda job: job.place), list[Listed]()
    for start in range(0, len(jobs), CHECKS):
        some = jobs[start : start + CHECKS]
        rights = await asyncio.gather(*(_may_read(auth, token, job) for job in some))
        allowed += [job for job, right in zip(some, rights, strict=True) if right]
    shown = allowed[:MOST_JOBS]
    return JobCards(jobs=await asyncio.gather(*map(_card, shown)), left_out=len(allowed) - len(shown))


async def _may_read(auth: Authenticator, token: str | None, job: Listed) -> bool:
    try:
        await auth.check(token, *job.place, "read")
    except Forbidden:
        return False
    return True


async def _card(job: Listed) -> JobCard:
    """The job's card; one that says why nothing else is known where there is none."""
    try:
        async with asyncio.timeout(CARD_SECONDS):
            return await job.card()
    except TimeoutError:
        reason = f"{SILENT}: nothing came for {CARD_SECONDS:g} s"
    except OpenseerError as error:
        reason = f"{SILENT}: {error}" if error.retryable else str(error)
    except Exception:
        log.exception("%s/%s: no card for the page", *job.place)
        reason = "a defect of openseer: the log of this server says which"
    return _unknown(job, reason)


def _unknown(job: Listed, reason: str) -> JobCard:
    namespace, name = job.place
    return JobCard(namespace=namespace, name=name, mode=job.mode, state="unknown", reason=reason)
