"""Creates the objects of jobs. Changes and deletes only objects that their job owns, by its uid.

An object that the census does not contain is created first. An existing object is read, and changed only if the job
owns it. The change contains the uid that was read, so it cannot affect an object that has taken the name since.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from openseer_core.manifest.job import KIND
from openseer_core.plan.observation import Refusal
from openseer_operator.kube.api import AlreadyThereError, Api, KubeApiError, KubeConflictError, NotThereError
from openseer_operator.kube.census import Census
from openseer_operator.objects.reading import JobRecord, JsonObject, owner_uid
from openseer_operator.settings import FIELD_MANAGER

MAY_PASS = frozenset({0, 401, 408, 429, 502, 503, 504})
"""HTTP statuses after which a retry may succeed, because they do not concern the object; 0: no answer. Any other status
is the server's refusal: quotas, limit ranges and Pod Security (403), webhooks (any status, 500 if one fails), invalid
fields (422)."""


class NotMadeError(KubeApiError):
    """Kubernetes refused to create an object, or an object of another owner has its name."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.kind} {refusal.name}: {refusal.message}")
        self.refusal = refusal


class OwnedObjects:
    """Creates, changes and deletes objects. `put` and `delete` store the result in the census."""

    def __init__(self, api: Api, census: Census) -> None:
        self._api = api
        self._census = census

    async def create(self, job: JobRecord, kind: str, body: JsonObject) -> JsonObject:
        """Creates an object; returns it, or the job's existing object of the same name. Raises NotMadeError and
        KubeApiError."""
        name = body["metadata"]["name"]
        try:
            return await self._make(job, kind, body)
        except KubeConflictError as conflict:
            found = await self._find(job, kind, name)
            if found is None:  # it was deleted, or a quota was being updated
                raise conflict from None
            return found

    async def create_unread(self, job: JobRecord, kind: str, body: JsonObject) -> None:
        """Creates an object unless it exists. Needs no permission to read it, because its name is unique to this
        job. Raises NotMadeError and KubeApiError."""
        with suppress(AlreadyThereError):
            await self._make(job, kind, body)

    async def _make(self, job: JobRecord, kind: str, body: JsonObject) -> JsonObject:
        """Creates an object. Raises NotMadeError if the server refuses it, and other KubeApiErrors."""
        try:
            return await self._api.create(kind, job.key[0], body)
        except (KubeConflictError, NotThereError):  # NotThereError: the namespace does not exist
            raise
        except KubeApiError as error:
            if error.status in MAY_PASS:
                raise
            raise NotMadeError(Refusal(kind, body["metadata"]["name"], error.message)) from None

    async def put(self, job: JobRecord, kind: str, body: JsonObject) -> None:
        """Creates an object, or changes the existing one to `body`. Raises NotMadeError and KubeApiError."""
        name = body["metadata"]["name"]
        found = await self._find(job, kind, name) if self._census.find(job, kind, name) is not None else None
        if found is None:
            found = await self.create(job, kind, body)
        if not _is_current(found, body):
            found = await self._change(kind, found, body)
        self._census.put(found, kind)

    async def delete(self, job: JobRecord, kind: str, name: str) -> None:
        """Deletes the job's own object of that name, if there is one. Raises NotMadeError and KubeApiError."""
        found = await self._find(job, kind, name)
        if found is not None:
            await self._api.delete(kind, job.key[0], name, found["metadata"]["uid"])
        self._census.drop(job.key, kind, name)

    async def expect_none(self, job: JobRecord, kind: str, name: str) -> None:
        """Raises NotMadeError if an object of that name exists: another controller would adopt it."""
        try:
            found = await self._api.get(kind, job.key[0], name)
        except NotThereError:
            return
        raise NotMadeError(_taken(job, kind, found["metadata"]))

    async def own(self, job: JobRecord, kind: str, name: str) -> JsonObject | None:
        """The job's own object of that name; None if there is none. Raises KubeApiError."""
        try:
            return await self._find(job, kind, name)
        except NotMadeError:
            return None

    async def _find(self, job: JobRecord, kind: str, name: str) -> JsonObject | None:
        """The object of that name; None if there is none. Raises NotMadeError if the job does not own it."""
        try:
            found = await self._api.get(kind, job.key[0], name)
        except NotThereError:
            return None
        if owner_uid(found["metadata"]) != job.uid:
            raise NotMadeError(_taken(job, kind, found["metadata"]))
        return found

    async def _change(self, kind: str, found: JsonObject, body: JsonObject) -> JsonObject:
        """Changes the object `found` by server-side apply. An apply removes only fields that an earlier apply set. So
        before the first apply, the managed fields of the operator's creation are changed from Update to Apply."""
        meta: JsonObject = found["metadata"]
        managers: list[JsonObject] = meta.get("managedFields") or []
        if not any(_is_ours(manager, "Apply") for manager in managers):
            applied = [
                {**manager, "operation": "Apply"} if _is_ours(manager, "Update") else manager for manager in managers
            ]
            head = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "managedFields": applied}
            await self._api.merge(kind, meta["namespace"], meta["name"], {"metadata": head})
        return await self._api.apply(kind, {**body, "metadata": {**body["metadata"], "uid": meta["uid"]}})


def _is_ours(manager: Mapping[str, Any], operation: str) -> bool:
    return (manager.get("manager"), manager.get("operation"), manager.get("subresource", "")) == (
        FIELD_MANAGER,
        operation,
        "",
    )


def _is_current(found: JsonObject, body: JsonObject) -> bool:
    """Whether the object `found` has the labels and annotations (with the hash) of the manifest `body`."""
    meta, wanted = found["metadata"], body["metadata"]
    return all((meta.get(part) or {}).items() >= wanted[part].items() for part in ("labels", "annotations"))


def _taken(job: JobRecord, kind: str, meta: Mapping[str, Any]) -> Refusal:
    owners: list[JsonObject] = meta.get("ownerReferences") or []
    earlier = any((owner.get("kind"), owner.get("name")) == (KIND, job.key[1]) for owner in owners)
    message = (
        "it belongs to an earlier job of this name; it is created again after that one is deleted"
        if earlier
        else "it exists and does not belong to this job, so it is not changed; delete it, or use another job name"
    )
    return Refusal(kind, meta["name"], message, taken=True)
