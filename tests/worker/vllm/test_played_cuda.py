"""What an engine's configuration is on a GPU, read on a played one."""

import pytest

from openseer_worker.vllm.environment import is_cpu_build
from tests.repository import ROOT
from tests.worker.vllm.played_cuda import on_played_cuda

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]
MODEL = str(ROOT / "examples" / "tiny-model" / "model")

CONFIGURATIONS = f"""
from vllm.engine.arg_utils import EngineArgs
from openseer_worker.vllm.environment import is_cpu_build
from vllm.platforms import current_platform

config = EngineArgs(model={MODEL!r}, tensor_parallel_size=2).create_engine_config()
answer = {{
    "platform": current_platform.device_type,
    "cpu build": is_cpu_build(),
    "worker": config.parallel_config.worker_cls,
    "executor": config.parallel_config.distributed_executor_backend,
    "world": config.parallel_config.world_size,
    "V2": config.use_v2_model_runner,
    "async": config.scheduler_config.async_scheduling,
}}
"""


def test_a_played_gpu_is_configured_as_one() -> None:
    assert on_played_cuda(CONFIGURATIONS, devices=2) == {
        "platform": "cuda",
        "cpu build": False,
        "worker": "vllm.v1.worker.gpu_worker.Worker",
        "executor": "mp",
        "world": 2,
        "V2": True,
        "async": True,
    }
