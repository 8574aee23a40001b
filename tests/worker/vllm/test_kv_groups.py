"""Block counts equal those of vLLM's own managers, on which one request at a time is played."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from openseer_core.queue.kv_blocks import KvLayout
from openseer_worker.vllm.environment import is_cpu_build, prepare
from openseer_worker.vllm.profile import layout_of

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

CONTEXT = 512
BLOCK = 16
BLOCKS = 400
ROOM = 48
"""Tokens that a step computes of one context."""


def attention(kind: str, **more: Any) -> Any:
    """A KV cache spec of vLLM by the name of its class."""
    import torch  # noqa: PLC0415 - heavy

    prepare()
    from vllm.v1 import kv_cache_interface  # noqa: PLC0415 - heavy

    sizes = {"block_size": BLOCK, "num_kv_heads": 1, "head_size": 8, "dtype": torch.float32}
    return getattr(kv_cache_interface, kind)(**sizes | more)


def full(**more: Any) -> Any:
    return attention("FullAttentionSpec", **more)


def window(tokens: int, **more: Any) -> Any:
    return attention("SlidingWindowSpec", sliding_window=tokens, **more)


def chunk(tokens: int) -> Any:
    return attention("ChunkedLocalAttentionSpec", attention_chunk_size=tokens)


def mamba(mode: str, block_size: int = CONTEXT, drafts: int = 0) -> Any:
    import torch  # noqa: PLC0415 - heavy
    from vllm.v1.kv_cache_interface import MambaSpec  # noqa: PLC0415 - heavy

    return MambaSpec(block_size, ((8, 8),), (torch.float32,), mamba_cache_mode=mode, num_speculative_blocks=drafts)


def engine(steps: int, drafts: int) -> Any:
    """A VllmConfig with so many concurrent steps, each with so many drafts per request."""
    return SimpleNamespace(
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        model_config=SimpleNamespace(max_model_len=CONTEXT),
        max_concurrent_batches=steps,
        max_in_flight_tokens=steps * ROOM,
        uniform_decode_query_len=1 + drafts,
        num_lookahead_tokens=0,
    )


def cache_of(*specs: Any) -> Any:
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheGroupSpec  # noqa: PLC0415 - heavy

    groups = [KVCacheGroupSpec([f"layer-{place}"], spec) for place, spec in enumerate(specs)]
    return KVCacheConfig(BLOCKS, [], groups)


def layout(specs: list[Any], config: Any) -> KvLayout:
    from openseer_worker.vllm.kv_groups import kv_rows  # noqa: PLC0415 - heavy

    return layout_of(kv_rows(cache_of(*specs), config))


def held(specs: list[Any], config: Any, prompt: int, response: int, drafts: int) -> tuple[int, list[int]]:
    """Maximum of blocks during the prefill, and the blocks after each step that generates tokens.

    Every second draft is accepted, so that steps begin at odd positions.
    """
    from vllm.sampling_params import SamplingParams  # noqa: PLC0415 - heavy
    from vllm.v1.core.kv_cache_manager import KVCacheManager  # noqa: PLC0415 - heavy
    from vllm.v1.request import Request  # noqa: PLC0415 - heavy

    manager = KVCacheManager(
        cache_of(*specs), CONTEXT, CONTEXT, CONTEXT, config.max_in_flight_tokens, enable_caching=False
    )
    request = Request("r", list(range(prompt)), SamplingParams(max_tokens=response), None)
    under_way: deque[int] = deque()

    def step(tokens: int) -> int:
        assert manager.allocate_slots(request, tokens) is not None
        request.num_computed_tokens += tokens
        request.num_in_flight_tokens += tokens
        under_way.append(tokens)
        if len(under_way) == config.max_concurrent_batches:
            request.num_in_flight_tokens -= under_way.popleft()
        return BLOCKS - 1 - manager.block_pool.get_num_free_blocks()

    computing = 0
    while request.num_computed_tokens < prompt:
        computing = max(computing, step(min(ROOM, prompt - request.num_computed_tokens)))
    request.num_in_flight_tokens = 0
    under_way.clear()
    generating: list[int] = []
    while request.num_tokens < prompt + response:
        request.append_output_token_ids([1] * min(1 + drafts // 2, prompt + response - request.num_tokens))
        new = request.num_tokens - request.num_computed_tokens
        ahead = min(drafts, prompt + response - request.num_tokens)
        generating.append(step(new + ahead))
        request.num_computed_tokens -= ahead  # refused
    return computing, generating


KINDS: dict[str, Callable[[int], list[Any]]] = {
    "full": lambda _: [full()],
    "window": lambda _: [window(40)],
    "hybrid": lambda _: [full(), window(40), window(40)],
    "two windows": lambda _: [full(), window(17), window(100)],
    "kept longer": lambda _: [full(), window(40, extra_retained_tokens=5)],
    "chunks": lambda _: [full(), chunk(64)],
    "uneven chunks": lambda _: [full(), chunk(40)],
    "states": lambda drafts: [full(), mamba("none", drafts=drafts)],
    "aligned states": lambda drafts: [full(), mamba("align", BLOCK, drafts)],
    "all states": lambda drafts: [full(), mamba("all", BLOCK, drafts)],
}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("drafts", [0, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_no_request_holds_more_blocks_than_counted(kind: str, drafts: int, steps: int) -> None:
    config = engine(steps, drafts)
    specs = KINDS[kind](drafts)
    counted = layout(specs, config)
    for prompt, response in ((1, 200), (15, 40), (16, 16), (33, 300), (200, 100), (301, 200)):
        computing, generating = held(specs, config, prompt, response, drafts)
        assert computing <= counted.blocks(prompt, prompt)
        assert max(generating) <= counted.blocks(prompt + response, prompt)
        # The blocks of the prefill are freed with the first step that generates.
        assert max(generating) <= counted.blocks(prompt + response, 0)


@pytest.mark.parametrize("kind", ["full", "window", "hybrid", "two windows", "states"])
def test_a_long_response_holds_the_counted_blocks_less_one_per_group(kind: str) -> None:
    config = engine(steps=1, drafts=0)
    specs = KINDS[kind](0)
    counted = layout(specs, config)
    computing, generating = held(specs, config, 200, 300, 0)
    assert computing >= counted.blocks(200, 200) - len(specs)
    assert max(generating) >= counted.blocks(500, 0) - len(specs)


def test_kv_groups_with_equal_blocks_are_counted_as_one() -> None:
    found = layout([full(), *[window(40)] * 5], engine(steps=1, drafts=0))
    assert [group.count for group in found.groups] == [1, 5]
    assert found.blocks(500, 0) == 32 + 5 * 4


def test_blocks_independent_of_tokens_are_counted_whole() -> None:
    ring = attention("CircularBufferSpec")
    encoder = attention("EncoderOnlyAttentionSpec")
    found = layout([ring, encoder], engine(steps=1, drafts=0))
    assert found.blocks(1, 1) == found.blocks(500, 500) == 1


def test_ranks_that_share_a_context_hold_larger_blocks() -> None:
    config = engine(steps=1, drafts=0)
    config.parallel_config.decode_context_parallel_size = 4
    assert layout([full()], config).blocks(4 * BLOCK + 1, 0) == 2
