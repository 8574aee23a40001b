"""An adapter for verl: a router that verl loads by name, and the server to which it sends all requests, the fleet.

Checked against verl 0.9.1. verl reads the YAML file `actor_rollout_ref.rollout.router_config_path`, and passes all keys
to the class in `router_class`:

    router_class: openseer_client.verl.Router
    url: http://gateway:8000/jobs/NAMESPACE/NAME   # unset: OPENSEER_URL
    token_file: /var/run/secrets/openseer/token    # unset: OPENSEER_TOKEN_FILE or OPENSEER_TOKEN
    response_length: 8192                          # as rollout.response_length

`openseer_client.verl_rollout` also sends the weights to openseer and prevents verl from starting its own engines.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel, ConfigDict

from openseer_client.async_client import AsyncClient
from openseer_client.http.calls import Call
from openseer_core.errors import InputError

SERVER = "openseer"
"""The id of the router's only server."""
DAY_SECONDS = 86400.0
"""Timeout of one response, in seconds; verl itself has none."""

# Each event loop of verl exists as long as its process. Each request has a new copy of the server, but needs no new
# client: equal servers share one.
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict["Server", AsyncClient]] = WeakKeyDictionary()


class _Words(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Finish(_Words):
    type: str


class _Meta(_Words):
    finish_reason: _Finish | None = None
    weight_version: str | None = None
    output_token_logprobs: list[tuple[float | None, int, str | None]] | None = None


class Generated(_Words):
    """The response of the route `/generate`."""

    output_ids: list[int]
    meta_info: _Meta

    @property
    def stop_reason(self) -> str:
        """verl's stop reason: completed, or aborted, after which verl continues from the tokens so far."""
        finish = self.meta_info.finish_reason
        return "aborted" if finish is None or finish.type == "abort" else "completed"

    @property
    def logprobs(self) -> list[float | None] | None:
        """Log-probability of each output token; None if none were requested."""
        found = self.meta_info.output_token_logprobs
        return [value for value, _, _ in found] if found is not None else None


@dataclass(frozen=True)
class Server:
    """The fleet, in place of verl's handle of an engine: `await server.generate.remote(...)`. It is picklable."""

    url: str | None = None
    token: str | None = None
    token_file: str | None = None
    response_length: int = 512

    @property
    def generate(self) -> "_Method":
        """The method that generates one response."""
        return _Method(self._generate)

    async def _generate(
        self,
        prompt_ids: Sequence[int],
        sampling_params: Mapping[str, Any],
        request_id: str,
        image_data: Any = None,
        video_data: Any = None,
        audio_data: Any = None,
        mm_processor_kwargs: Any = None,
        priority: int = 0,
    ) -> Any:
        """Generates one response; returns verl's TokenOutput. `priority` is ignored, because the fleet orders requests
        itself. Raises InputError for anything but token ids."""
        # Only verl calls this method, so verl is installed.
        token_output: Any = import_module("verl.workers.rollout.replica").TokenOutput

        if image_data or video_data or audio_data:
            raise InputError("images, video and audio: openseer takes token ids only")
        call = generation(prompt_ids, sampling_params, request_id, self.response_length)
        answer = await self._client().do(call)
        steps = steps_of(answer.meta_info.weight_version)
        return token_output(
            token_ids=answer.output_ids,
            log_probs=answer.logprobs,
            stop_reason=answer.stop_reason,
            num_preempted=0,
            extra_fields={"global_steps": steps} if steps is not None else {},
        )

    def _client(self) -> AsyncClient:
        clients = _clients.setdefault(asyncio.get_running_loop(), {})
        if self not in clients:
            clients[self] = AsyncClient(self.url, token=self.token, token_file=self.token_file)
        return clients[self]


class _Method:
    """A method that verl calls with `.remote(...)`. It is called directly: there is no Ray actor."""

    def __init__(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.remote = method


def generation(
    prompt_ids: Sequence[int], sampling: Mapping[str, Any], request_id: str, response_length: int
) -> Call[Generated]:
    """Returns the call for one response. The API groups requests with equal prompt and sampling.
    Raises InputError for a repetition_penalty."""
    known = dict(sampling)
    logprobs = bool(known.pop("logprobs", False))
    if float(known.pop("repetition_penalty", 1.0)) != 1.0:
        raise InputError("repetition_penalty: a response could not continue on another worker with it; leave it at 1.0")
    limit = known.pop("max_tokens", None)
    sglang_limit = known.pop("max_new_tokens", None)
    known["max_new_tokens"] = int(limit or sglang_limit or response_length)
    body = {
        "rid": request_id,
        # verl may pass numpy's integers, which the json module cannot encode.
        "input_ids": [int(token) for token in prompt_ids],
        "sampling_params": known,
        "return_logprob": logprobs,
        "stream": False,
    }
    return Call(
        "POST",
        "/generate",
        Generated.model_validate_json,
        body=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        wait_seconds=DAY_SECONDS,
    )


def steps_of(version: str | None) -> int | None:
    """Returns verl's global step in the name of a version that `verl_rollout` published: the number after the last
    dash; None if there is none."""
    last = (version or "").rpartition("-")[2]
    return int(last) if last.isdigit() else None


class Router:
    """A RequestLoadBalancer for verl that sends every request to the fleet, which balances its load itself."""

    def __init__(self, servers: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._engines = set(servers)
        self._inflight = 0
        self._server = Server(
            url=config.get("url"),
            token=config.get("token"),
            token_file=config.get("token_file"),
            response_length=int(config.get("response_length", 512)),
        )

    def acquire_server(self, request_id: str, **extra: Any) -> tuple[str, Any]:
        """Returns the fleet, for every request."""
        self._inflight += 1
        return SERVER, self._server

    def require_acquire_fields(self) -> list[str]:
        """Returns the fields of a request that the routing needs: none."""
        return []

    def require_release_fields(self) -> list[str]:
        """Returns the fields of a request that its release needs: none."""
        return []

    def release_server(self, server_id: str, request_id: str | None = None) -> None:
        """Records that a request has ended."""
        self._inflight = max(0, self._inflight - 1)

    def add_servers(self, servers: dict[str, Any]) -> None:
        """Records engines that verl has started; they receive no requests."""
        self._engines |= set(servers)

    def remove_servers(self, server_ids: list[str]) -> None:
        """Removes engines that verl has stopped."""
        self._engines -= set(server_ids)

    def get_all_servers(self) -> list[str]:
        """Returns the ids of the servers: that of the fleet."""
        return [SERVER]

    def get_status(self) -> dict[str, Any]:
        """Returns the router's state, for verl's logs. `unused`: verl's own engines."""
        return {
            "servers": {SERVER: self._inflight},
            "total_inflight": self._inflight,
            "active_servers": 1,
            "unused": sorted(self._engines),
        }

    def clear_sticky_cache(self) -> dict[str, Any]:
        """Does nothing, because requests are not bound to servers; returns a report in verl's form."""
        return {"cleared_entries": 0, "server_loads": {SERVER: self._inflight}}

    def get_total_inflight(self) -> int:
        """Returns the number of acquired requests that were not released."""
        return self._inflight
