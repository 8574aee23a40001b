"""A trainer that sends weights from its memory, with vLLM's own sending side."""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Mapping
from typing import Any

import requests

from benchmarks.support.control_plane import free_port

CALL_SECONDS = 300


def join(url: str, tensors: Mapping[str, Any]) -> Any:
    """A sender of these tensors that has joined the fleet at this address; its token is the URL's password."""
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource  # noqa: PLC0415 - many seconds of imports
    from vllm.distributed.weight_transfer.clients import HTTPVLLMWeightSyncClient  # noqa: PLC0415
    from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory  # noqa: PLC0415

    from openseer_worker.vllm.receiving import gloo  # noqa: PLC0415

    class Tensors(WeightSource):
        def metadata(self) -> list[ParamMeta]:
            return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]

        def __iter__(self) -> Iterator[tuple[str, Any]]:
            return iter(tensors.items())

    gloo.register()
    size = requests.get(f"{url}/get_world_size", timeout=CALL_SECONDS).json()["world_size"]
    info = gloo.GlooTrainerInitInfo("127.0.0.1", free_port(), size + 1, rank=0)
    client = HTTPVLLMWeightSyncClient(url, timeout=CALL_SECONDS)
    factory: Any = WeightTransferTrainerFactory
    return factory.trainer_init(info, client=client, source=Tensors())
