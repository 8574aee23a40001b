"""An adapter for verl: a rollout without an engine of its own, which sends weights and requests to openseer's fleet.

Checked against verl 0.9.1, where `VERL_USE_EXTERNAL_MODULES=openseer_client.verl_rollout` makes
`actor_rollout_ref.rollout.name=openseer` available. Settings are in `actor_rollout_ref.rollout.custom`:

    weights_folder: /weights     # required: accessible to the trainer and to every worker
    url, token_file              # unset: from the environment
    run: math                    # prefix of the versions' names
    mode: abort                  # for running responses: abort (verl continues them), keep or drain
    share_gpus: true             # the fleet's workers use the trainer's GPUs, and sleep while it trains
"""

# verl and Ray are no dependencies of openseer: their values are Any here.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUntypedBaseClass=false, reportUnknownArgumentType=false, reportUnknownParameterType=false

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import Any

from verl.workers.rollout.base import _ROLLOUT_REGISTRY, BaseRollout  # pyright: ignore[reportPrivateUsage]
from verl.workers.rollout.replica import RolloutMode, RolloutReplica, RolloutReplicaRegistry
from verl.workers.rollout.utils import ensure_async_iterator

from openseer_client.client import Client
from openseer_client.ranks import by_first
from openseer_client.torch_weights import WeightsFolder
from openseer_client.verl import Server
from openseer_core.errors import InputError
from openseer_core.weights.publish import Publish, Source
from openseer_core.wire.fleet import Acquire, Release

NAME = "openseer"


def _settings(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "custom", None) or {})


def _client(settings: dict[str, Any]) -> Client:
    return Client(settings.get("url"), token=settings.get("token"), token_file=settings.get("token_file"))


class Rollout(BaseRollout):
    """verl's rollout, one object per trainer process. The first process writes and publishes the weights;
    all processes gather them."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1, **more: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        settings = _settings(self.config)
        if "weights_folder" not in settings:
            raise InputError(
                "actor_rollout_ref.rollout.custom.weights_folder: not set; needed: a folder all workers see"
            )
        self.replica_rank = max(0, replica_rank)
        self._rank = int(os.environ.get("RANK", "0"))
        self.is_leader_rank = self._rank == 0
        self._settings = settings
        self._folder = WeightsFolder(settings["weights_folder"])
        self._name = f"{settings.get('run', 'verl')}-{uuid.uuid4().hex[:8]}"
        self._count = 0

    async def resume(self, tags: list[str]) -> None:
        """Wakes the parts in `tags` of the fleet's engines; does nothing without `share_gpus`."""
        if self._settings.get("share_gpus"):
            await self._by_leader(lambda client: client.acquire(Acquire.model_validate({"parts": tags})))

    async def release(self) -> None:
        """Makes the fleet's engines release the GPUs; does nothing without `share_gpus`."""
        if self._settings.get("share_gpus"):
            await self._by_leader(lambda client: client.release(Release(keep_weights=False)))

    async def update_weights(
        self, weights: Any, wire_format: str = "named_tensors", global_steps: int | None = None, **more: Any
    ) -> None:
        """Writes the weights as they are gathered, publishes them, and returns when the whole fleet has loaded them.
        Raises InputError for other formats than whole tensors."""
        if (
            wire_format != "named_tensors"
            or not more.get("base_sync_done", True)
            or more.get("peft_config") is not None
        ):
            raise InputError("weights: whole tensors are needed (with LoRA set model.lora.merge=True)")
        tensors = ensure_async_iterator(weights)
        await by_first(self.is_leader_rank, lambda: self._publish(tensors, global_steps), tensors)

    async def _by_leader(self, call: Callable[[Client], Any]) -> None:
        """Makes a call to the fleet in the first process; all processes wait for it and raise its error."""

        async def work() -> None:
            with _client(self._settings) as client:
                await asyncio.to_thread(call, client)

        await by_first(self.is_leader_rank, work)

    async def _publish(self, tensors: Any, global_steps: int | None) -> None:
        # The weights of a version never change, so each publish needs a new name.
        self._count += 1
        version = f"{self._name}.{self._count}-{global_steps or 0}"
        with self._folder.writing(version) as shards:
            async for name, tensor in tensors:
                shards.add(name, tensor)
        path = str(self._folder.path / version)
        what = Publish(version=version, source=Source(path=path), mode=self._settings.get("mode", "abort"))
        with _client(self._settings) as client:
            await asyncio.to_thread(client.publish, what)
        self._folder.note_published(version)


class Replica(RolloutReplica):
    """A replica for verl that is the fleet, in place of an inference server."""

    async def init_standalone(self) -> None:
        """Starts no engine and requests no GPU from Ray, because the fleet has its own."""
        backend = self.config.checkpoint_engine.backend
        if backend != "naive":
            raise InputError(
                f"actor_rollout_ref.rollout.checkpoint_engine.backend: found {backend}, needed: naive; the "
                "trainer's own processes write the weights, and no process of a rollout is there to receive them"
            )
        self.rollout_mode = RolloutMode.STANDALONE
        await self.launch_servers()

    async def init_colocated(self, resource_pool: Any) -> None:
        """Starts no engine; only the trainer uses `resource_pool`."""
        self.rollout_mode = RolloutMode.COLOCATED
        await self.launch_servers()

    async def launch_servers(self) -> None:
        """Sets the handle and the address of the fleet; launches nothing."""
        settings = _settings(self.config)
        server = Server(
            url=settings.get("url"),
            token=settings.get("token"),
            token_file=settings.get("token_file"),
            response_length=int(self.config.response_length),
        )
        self.servers = []
        self._server_handle = server
        self._server_address = settings.get("url") or os.environ.get("OPENSEER_URL", "")

    async def sleep(self) -> None:
        """Lends the GPUs to the trainer, after a batch; does nothing without `share_gpus`."""
        await self._lend(lambda client: client.release(Release(keep_weights=False)))

    async def wake_up(self) -> None:
        """Wakes all parts of the engines; does nothing without `share_gpus`."""
        await self._lend(lambda client: client.acquire())

    async def _lend(self, call: Callable[[Client], Any]) -> None:
        """Makes a call to the fleet in the first replica; does nothing without `share_gpus`."""
        settings = _settings(self.config)
        if settings.get("share_gpus") and self.replica_rank == 0:
            with _client(settings) as client:
                await asyncio.to_thread(call, client)

    def rollout_worker_use_gpu(self) -> bool:
        """Returns False: Ray does not manage the fleet's GPUs."""
        return False


_ROLLOUT_REGISTRY[NAME, "async"] = f"{__name__}.Rollout"
RolloutReplicaRegistry.register(NAME, lambda: Replica)
