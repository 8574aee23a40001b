"""A client of the Kubernetes API for the gateway: reads objects by name, lists jobs and creates reviews."""

import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from openseer_core.errors import InputError, OpenseerError
from openseer_process.deep_json import read_json

Json = dict[str, Any]

CONNECT_SECONDS = 2.0
"""Timeout of a connection to the API server, in seconds; short, because a caller of the gateway waits."""
CALL_SECONDS = 10.0
"""Timeout of one call, in seconds."""
PAGE_OBJECTS = 500
"""Limit of objects in one page of a LIST."""
LONGEST_ERROR = 500
"""Limit of the server's message in the text of a KubeError, in characters."""


class KubeError(OpenseerError):
    """The API server refused a call (`status`: of HTTP), or did not respond (`status` 0)."""

    retryable = True

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Kube:
    """A client of the API server. It sends paths unchanged, so its caller must validate the names in them."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @staticmethod
    async def connect() -> "Kube":
        """Connects with the pod's ServiceAccount, else with KUBECONFIG. Raises InputError if neither is usable."""
        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            try:
                await load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
            except (ConfigException, OSError) as error:
                raise InputError(
                    f"no access to the Kubernetes API, neither in a pod nor through KUBECONFIG: {error}"
                ) from None
        return Kube(ApiClient(configuration))

    async def close(self) -> None:
        await self._client.close()

    async def get(self, path: str) -> Json | None:
        """Returns the object at `path`; None if it does not exist (404, 410). Raises KubeError."""
        try:
            return await self._call("GET", path)
        except KubeError as error:
            if error.status in (404, 410):
                return None
            raise

    async def pages(self, path: str) -> AsyncIterator[list[Json]]:
        """Yields the objects of a collection, in pages of at most PAGE_OBJECTS. Raises KubeError."""
        proceed = ""
        while True:
            more = [("continue", proceed)] if proceed else []
            page = await self._call("GET", path, query=[("limit", str(PAGE_OBJECTS)), *more])
            yield page.get("items") or []
            proceed = page["metadata"].get("continue", "")
            if not proceed:
                break

    async def review(self, path: str, body: Json) -> Json:
        """Creates a review object and returns the server's answer. Raises KubeError."""
        return await self._call("POST", path, body=body)

    async def _call(
        self, method: str, path: str, *, query: Sequence[tuple[str, str]] = (), body: Json | None = None
    ) -> Json:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            request = await self._client.param_serialize(
                method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            limit: Any = aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS)
            response = await self._client.call_api(*request, _request_timeout=limit)
            status, data = response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise KubeError(f"{method} {path}: the Kubernetes API did not answer: {reason}") from None
        if status >= 400:
            raise KubeError(f"{method} {path}: {status} {_message_of(data)[:LONGEST_ERROR]}", status)
        return read_json(data)


def _message_of(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        return data.decode(errors="replace")
