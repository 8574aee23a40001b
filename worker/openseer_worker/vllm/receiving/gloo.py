"""A backend of vLLM's weight transfer between CPUs, over torch's gloo: both sides, registered with vLLM's factories.

The protocol is that of vLLM's NCCL backend (vllm/distributed/weight_transfer/nccl_engine.py): the trainer is rank 0 of
a process group. It announces names, dtypes and shapes, and broadcasts the tensors one after the other.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Self, cast

import torch
from torch._C._distributed_c10d import BroadcastOptions
from vllm.distributed.utils import stateless_init_torch_distributed_process_group
from vllm.distributed.weight_transfer.base import (
    TrainerInitInfo,
    TrainerWeightTransferEngine,
    VLLMWeightSyncClient,
    WeightSource,
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory, WeightTransferTrainerFactory

from openseer_core.weights.reception import JOIN_SECONDS

BACKEND = "gloo"


@dataclass
class GlooInitInfo(WeightTransferInitInfo):
    """The trainer's address, the size of the group, and the first rank of the receivers (`rank_offset`)."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int


@dataclass
class GlooUpdateInfo(WeightTransferUpdateInfo):
    """The tensors to be broadcast, in this order."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


def _join(address: str, port: int, rank: int, size: int) -> tuple[Any, Any]:
    """Joins the process group; returns the group and its store, which rank 0 serves."""
    joined: Any = stateless_init_torch_distributed_process_group(
        address, port, rank, size, BACKEND, return_store=True, timeout=timedelta(seconds=JOIN_SECONDS)
    )
    return joined


def _broadcast(group: Any, tensor: torch.Tensor) -> None:
    """Broadcasts a tensor from rank 0 to the others."""
    options = BroadcastOptions()
    options.rootRank = options.rootTensor = 0
    group.broadcast([tensor], options).wait()


class GlooTransferEngine(WeightTransferEngine[GlooInitInfo, GlooUpdateInfo]):
    """The receiving side."""

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo
    _group: Any = None
    store: Any = None

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        rank = init_info.rank_offset + self.parallel_config.rank
        self._group, self.store = _join(init_info.master_address, init_info.master_port, rank, init_info.world_size)

    def start_weight_update(self) -> None:
        """Does nothing: the model loads each tensor as it arrives."""

    def finish_weight_update(self) -> None:
        """Does nothing: all tensors are loaded."""

    def receive_weights(self, update_info: GlooUpdateInfo) -> None:
        for name, dtype, shape in zip(update_info.names, update_info.dtype_names, update_info.shapes, strict=True):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            _broadcast(self._group, tensor)
            cast("Any", self.model).load_weights([(name, tensor)])

    def shutdown(self) -> None:
        self._group = self.store = None


@dataclass
class GlooTrainerInitInfo(TrainerInitInfo):
    """The address at which the trainer's rank 0 opens the process group, and the group's size, rank 0 included."""

    backend: ClassVar[str] = BACKEND

    master_address: str
    master_port: int
    world_size: int


class GlooTrainerEngine(TrainerWeightTransferEngine[GlooTrainerInitInfo]):
    """The sending side, for trainers that run on CPUs."""

    init_info_cls = GlooTrainerInitInfo
    _group: Any = None
    _store: Any = None

    @classmethod
    def trainer_init(
        cls, init_info: GlooTrainerInitInfo, *, client: VLLMWeightSyncClient, source: WeightSource | None = None
    ) -> Self:
        engine = cls(client=client, source=source, is_sender=init_info.is_sender)
        if not engine.is_sender:
            return engine
        address, port, size = init_info.master_address, init_info.master_port, init_info.world_size
        receiver = GlooInitInfo(address, port, rank_offset=1, world_size=size)
        with ThreadPoolExecutor(1) as pool:  # the two sides wait for each other
            answer = pool.submit(client.init_weight_transfer_engine, asdict(receiver))
            engine._group, engine._store = _join(address, port, 0, size)
            answer.result()
        return engine

    def send_weights(self) -> None:
        assert self.source is not None
        if not self.is_sender:
            for _ in self.source:  # all ranks iterate, because gathering a tensor may need them
                pass
            return
        meta = self.source.metadata()
        update = GlooUpdateInfo(
            [one.name for one in meta],
            [str(one.dtype).removeprefix("torch.") for one in meta],
            [list(one.shape) for one in meta],
        )
        self.client.start_weight_update()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.client.update_weights, asdict(update))
            for _, tensor in self.source:
                _broadcast(self._group, tensor.detach().cpu().contiguous())
            answer.result()
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        self._group = self._store = None


@cache
def register() -> None:
    """Registers both sides of the backend with vLLM, once per process."""
    WeightTransferEngineFactory.register_engine(BACKEND, GlooTransferEngine)
    WeightTransferTrainerFactory.register_engine(BACKEND, GlooTrainerEngine)
