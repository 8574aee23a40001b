"""Deletes every RolloutJob and waits until all are gone: `python -m openseer_operator.uninstall`.

The chart runs it before it removes the operator together with the CRD. The operator that still runs takes the
finalizers off; a job that is left afterwards would hold up the CRD for ever.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from openseer_core.errors import OpenseerError
from openseer_operator.kube.api import Api, KubeConflictError, NotThereError
from openseer_process.logs import start_log

WAIT_SECONDS = 300.0
"""Longest wait for the jobs to go, unless OPENSEER_UNINSTALL_SECONDS says otherwise."""
LOOK_SECONDS = 1.0
"""Between two looks at what is left."""
MOST_NAMES = 10
"""Jobs that are named when some are left."""

log = logging.getLogger(__name__)


class JobsLeftError(OpenseerError):
    """Jobs were still there when the time was over."""


async def delete_jobs(api: Api, namespaces: Sequence[str], seconds: float) -> None:
    """Deletes the jobs of these namespaces, of all when there are none, those too that are made meanwhile; returns when
    none is left. Raises JobsLeftError after so many seconds, and KubeApiError."""
    give_up_at = time.monotonic() + seconds
    deleted: set[str] = set()
    while True:
        left: list[str] = []
        async for page in api.pages("RolloutJob", namespaces, metadata_only=True):
            for raw in page:
                meta = raw["metadata"]
                left.append(f"{meta['namespace']}/{meta['name']}")
                if meta["uid"] not in deleted:
                    with suppress(NotThereError, KubeConflictError):
                        await api.delete("RolloutJob", meta["namespace"], meta["name"], meta["uid"])
                    deleted.add(meta["uid"])
        if not left:
            log.info("%d jobs deleted, none is left", len(deleted))
            return
        if time.monotonic() >= give_up_at:
            names = ", ".join(sorted(left)[:MOST_NAMES]) + (", …" if len(left) > MOST_NAMES else "")
            raise JobsLeftError(
                f"{len(left)} jobs are still there after {seconds:.0f} s: {names}. See that an operator runs, or take "
                "their finalizers off (kubectl patch rj NAME --type=merge -p "
                '\'{"metadata":{"finalizers":null}}\', which leaves their keys in their own stores); then uninstall '
                "again"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _run() -> None:
    api = await Api.connect()
    try:
        namespaces = tuple(filter(None, os.environ.get("OPENSEER_WATCH_NAMESPACES", "").split(",")))
        await delete_jobs(api, namespaces, float(os.environ.get("OPENSEER_UNINSTALL_SECONDS", WAIT_SECONDS)))
    finally:
        await api.close()


def main() -> int:
    """The entry point; errors that a person can fix are one line."""
    start_log()
    try:
        asyncio.run(_run())
    except OpenseerError as error:
        log.error("error: %s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
