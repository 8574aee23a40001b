"""Blocks as rows of bytes: a block copied from one KV cache to another is unchanged."""

from typing import Any

import pytest

from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.vllm.kv_pool.lazy import torch

BLOCKS = 6

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


def block_tensors(caches: dict[str, Any]) -> Any:
    from openseer_worker.vllm.kv_pool.block_tensors import BlockTensors  # noqa: PLC0415 - heavy

    return BlockTensors(caches, BLOCKS)


def caches(*shapes: tuple[int, ...], dtype: str = "float32") -> dict[str, Any]:
    random = torch.Generator().manual_seed(1)
    return {
        f"layer {n}": torch.randn(shape, generator=random).to(getattr(torch, dtype)) for n, shape in enumerate(shapes)
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(BLOCKS, 2, 4, 8), (2, BLOCKS, 4, 8), (BLOCKS, 4, 8), (BLOCKS, 2, 2, 6)])
def test_blocks_are_the_same_in_another_cache(shape: tuple[int, ...], dtype: str) -> None:
    first = caches(shape, shape, dtype=dtype)
    second = {name: torch.zeros_like(cache) for name, cache in first.items()}
    rows = block_tensors(first).take([4, 1])
    tensors = block_tensors(second)
    assert rows.shape == (2, tensors.block_bytes)
    tensors.put(rows, [0, 5])
    dimension = shape.index(BLOCKS)
    for name, cache in first.items():
        copied, original = second[name].movedim(dimension, 0), cache.movedim(dimension, 0)
        assert torch.equal(copied[[0, 5]], original[[4, 1]])
        assert not copied[1:5].any(), "another block was written"


def test_a_cache_with_another_memory_order_gives_the_same_blocks() -> None:
    shape = (BLOCKS, 2, 4, 8)
    first = caches(shape)
    turned = {name: torch.zeros(BLOCKS, 4, 2, 8).permute(0, 2, 1, 3) for name in first}
    block_tensors(turned).put(block_tensors(first).take([2]), [3])
    assert torch.equal(turned["layer 0"][3], first["layer 0"][2])


def test_an_attention_with_smaller_blocks_holds_one_block_in_several() -> None:
    first = caches((2, 2 * BLOCKS, 4))
    second = {name: torch.zeros_like(cache) for name, cache in first.items()}
    block_tensors(second).put(block_tensors(first).take([4]), [1])
    assert torch.equal(second["layer 0"][:, 2:4], first["layer 0"][:, 8:10])
    assert not second["layer 0"][:, 4:].any()


def test_an_eight_bit_cache_gives_the_same_blocks() -> None:
    first = {"layer 0": torch.randn(BLOCKS, 4, 8).to(torch.float8_e4m3fn)}
    second = {name: torch.zeros_like(cache) for name, cache in first.items()}
    block_tensors(second).put(block_tensors(first).take([4, 0]), [1, 2])
    assert torch.equal(second["layer 0"][[1, 2]].view(torch.uint8), first["layer 0"][[4, 0]].view(torch.uint8))


def test_layers_of_different_sizes_are_stored_in_sequence() -> None:
    first = caches((BLOCKS, 4), (2, BLOCKS, 3), (BLOCKS, 2, 5))
    second = {name: torch.zeros_like(cache) for name, cache in first.items()}
    tensors = block_tensors(first)
    assert tensors.block_bytes == 4 * (4 + 6 + 10)
    block_tensors(second).put(tensors.take(range(BLOCKS)), range(BLOCKS))
    assert all(torch.equal(second[name], cache) for name, cache in first.items())


def test_rows_taken_do_not_change_with_the_cache() -> None:
    first = caches((BLOCKS, 4))
    rows = block_tensors(first).take([1])
    before = rows.clone()
    first["layer 0"].zero_()
    assert torch.equal(rows, before)


def test_a_cache_with_unknown_block_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 0.*\(3, 7, 4\).*6 blocks"):
        block_tensors(caches((3, 7, 4)))
