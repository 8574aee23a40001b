"""What the bench needs to be there, and what becomes of orders and processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from openseer_core.errors import EngineError
from openseer_worker.gpu_bench.children import Children
from openseer_worker.gpu_bench.plan import STOCK, parts_of
from openseer_worker.gpu_bench.shapes import CPU
from openseer_worker.gpu_bench.ways import Order

ELSEWHERE = (
    "openseer_local", "openseer_store", "openseer_text", "openseer_process", "openseer_driver", "openseer_api",
    "openseer_operator", "typer", "rich", "kopf", "redis", "matplotlib", "jinja2", "yaml",
)  # fmt: skip


def test_it_needs_of_openseer_only_core_draft_and_worker() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({ELSEWHERE!r}))
import openseer_worker.gpu_bench.main, openseer_worker.gpu_bench.forks, openseer_worker.gpu_bench.measure
assert "vllm" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def order(folder: Path) -> Order:
    return Order(
        way=STOCK, parts=tuple(parts_of(STOCK, (2,))), folder=str(folder), model=str(folder), dummy=True, exact=False,
        most=2, scale=CPU, tier="as vLLM chooses", seconds=60.0, on_cpu=True,
    )  # fmt: skip


def test_an_order_is_the_same_after_its_way_through_a_pipe(tmp_path: Path) -> None:
    assert Order.from_json(order(tmp_path).to_json()) == order(tmp_path)


def test_a_bench_that_cannot_start_engines_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine without vLLM: the interpreter has no packages.
    monkeypatch.setattr(sys, "path", [])
    with Children(tmp_path, tmp_path) as children, pytest.raises(EngineError, match="vLLM cannot be imported"):
        children.warm_up()
