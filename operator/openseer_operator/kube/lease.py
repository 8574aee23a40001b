"""Leader election: the replica that holds a coordination.k8s.io Lease, and renews it in time, leads.

Two replicas never lead at once if their clocks run at the same speed: a holder that cannot renew the Lease stops
leading before another replica may take it. Clocks are not compared: a Lease has expired if a candidate has observed no
change of it for its duration.
"""

import asyncio
import logging
import random
from datetime import UTC, datetime

from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError, NotThereError
from openseer_operator.objects.reading import JsonObject

LEASE_SECONDS = 15.0
"""Time without renewal after which another replica may take the lease, in seconds."""
RENEW_DEADLINE_SECONDS = 10.0
"""Time without renewal after which the holder stops leading, in seconds."""
RETRY_SECONDS = 2.0
"""Interval of attempts to take or renew the lease, in seconds."""
LATE_SECONDS = 60.0
"""Time without renewal after which a holder that still leads counts as stuck, in seconds."""

log = logging.getLogger(__name__)


class Elector:
    """One candidate. Its user calls `acquire`, then `hold`, which returns when the lease is lost, then `release`."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seen: JsonObject = {}
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self.leads = False

    async def acquire(self) -> None:
        """Waits until this candidate leads."""
        log.info("waiting for lease %s/%s as %s", self._namespace, self._name, self._identity)
        while not await self._try_once():  # noqa: ASYNC110 - another process releases the lease
            await asyncio.sleep(RETRY_SECONDS * random.uniform(1.0, 1.2))
        self.leads = True
        log.info("leading as %s", self._identity)

    async def hold(self) -> None:
        """Renews the lease; returns when it is lost."""
        while _now() - self._renewed_at < RENEW_DEADLINE_SECONDS:
            await asyncio.sleep(RETRY_SECONDS)
            left = self._renewed_at + RENEW_DEADLINE_SECONDS - _now()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    if not await self._try_once() and self._holder != self._identity:
                        break
            except TimeoutError:
                break
        self.leads = False
        log.error("lease %s/%s is lost", self._namespace, self._name)

    async def release(self) -> None:
        """Releases the lease, so that another replica takes over at once."""
        if not self.leads:
            return
        self.leads = False
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._write(holder="", seconds=1)
        except (KubeApiError, TimeoutError) as error:
            log.warning("the lease is not released, it will expire: %s", error)

    def late(self) -> str:
        """The problem if this candidate leads and has not renewed the lease for LATE_SECONDS; else ""."""
        late = _now() - self._renewed_at
        return f"the lease was not renewed for {late:.0f} s" if self.leads and late > LATE_SECONDS else ""

    # ---- one attempt

    @property
    def _spec(self) -> JsonObject:
        return self._seen.get("spec") or {}

    @property
    def _holder(self) -> str:
        return self._spec.get("holderIdentity") or ""

    async def _try_once(self) -> bool:
        """Takes or renews the lease. Returns False if another replica holds it, or the call failed."""
        try:
            await self._fetch()
            if self._holder not in ("", self._identity) and _now() < self._seen_at + self._duration:
                return False
            start = _now()
            await self._write(holder=self._identity, seconds=int(LEASE_SECONDS))
        except KubeConflictError:  # another replica was faster
            return False
        except KubeApiError as error:
            log.warning("lease: %s", error)
            return False
        self._renewed_at = start
        return True

    @property
    def _duration(self) -> float:
        return float(self._spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    async def _fetch(self) -> None:
        try:
            found = await self._api.get("Lease", self._namespace, self._name)
        except NotThereError:
            found = {}
        if found.get("spec") != self._seen.get("spec"):
            self._seen_at = _now()
        self._seen = found

    async def _write(self, holder: str, seconds: int) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = self._spec
        same = old.get("holderIdentity") == holder
        spec: JsonObject = {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": old.get("acquireTime") if same else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if same or not holder else 1),
        }
        meta: JsonObject = {"name": self._name, "namespace": self._namespace}
        body: JsonObject = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        if self._seen:
            meta["resourceVersion"] = self._seen["metadata"]["resourceVersion"]
            self._seen = await self._api.replace("Lease", self._namespace, body)
        else:
            self._seen = await self._api.create("Lease", self._namespace, body)
        self._seen_at = _now()


def _now() -> float:
    return asyncio.get_running_loop().time()
