"""An overview of all jobs: a card for each job that the viewer may read, also if its store fails."""

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
"""Timeout of one job's card, in seconds, so that a store that hangs does not delay the view for longer."""
CHECKS = 16
"""Limit of concurrent checks of rights."""
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
        """The job's mode."""
        return self._job.mode

    async def card(self) -> JobCard:
        """Returns a card with the reason why the job is not open."""
        return _unknown(self, self._job.reason)


async def cards(auth: Authenticator, token: str | None, jobs: Sequence[Listed]) -> JobCards:
    """Returns at most MOST_JOBS cards of the jobs that the token may read, ordered by namespace and name. Raises
    Unauthenticated, and AuthUnavailable while the token's rights cannot be checked."""
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
    """Returns the job's card or, if it fails, a card with the reason."""
    try:
        async with asyncio.timeout(CARD_SECONDS):
            return await job.card()
    except TimeoutError:
        reason = f"{SILENT}: no data within {CARD_SECONDS:g} s"
    except OpenseerError as error:
        reason = f"{SILENT}: {error}" if error.retryable else str(error)
    except Exception:
        log.exception("%s/%s: no card for the page", *job.place)
        reason = "a defect of openseer; see the log of this server"
    return _unknown(job, reason)


def _unknown(job: Listed, reason: str) -> JobCard:
    namespace, name = job.place
    return JobCard(namespace=namespace, name=name, mode=job.mode, state="unknown", reason=reason)
