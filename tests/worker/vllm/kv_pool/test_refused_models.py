"""Models whose contexts no pool can hold are refused when their engine is built."""

from pathlib import Path

import pytest

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Parallelism, Sampling
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.player import model

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


def test_a_model_with_windows_is_refused(windowed_folder: Path, tmp_path: Path) -> None:
    pool = EnginePool("shared-directory", tmp_path)
    with pytest.raises(ModelError, match=r"spec\.kvPool.*sliding window"):
        VllmEngine(model(windowed_folder), Parallelism(), Sampling(), cache_salt="windows", pool=pool)
