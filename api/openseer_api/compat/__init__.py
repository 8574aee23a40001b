"""Routes of other servers that trainers already use, as a thin layer over batches: vLLM's, OpenAI's and SGLang's.

Read `live` (what the routes share), then a folder per protocol: `openai`, `vllm`, `sglang`; `control` is for both
servers. Tests: tests/api/compat.
"""

from fastapi import APIRouter

from openseer_api.compat.control import adapter_routes, info, lending, pausing, transfer, weight_checks, weight_routes
from openseer_api.compat.live.refusals import protocol_error
from openseer_api.compat.openai import routes as openai_routes
from openseer_api.compat.sglang import generate as sglang_generate
from openseer_api.compat.vllm import generate as vllm_generate
from openseer_api.compat.vllm import tokens as vllm_tokens

__all__ = ["GENERATING", "compatible_routers", "protocol_error"]

GENERATING = frozenset({"/v1/completions", "/v1/chat/completions", "/inference/v1/generate", "/generate"})
"""Paths of calls that may bring many prompts at once."""


def compatible_routers() -> list[APIRouter]:
    """All of them."""
    modules = (
        openai_routes,
        vllm_generate,
        vllm_tokens,
        sglang_generate,
        weight_routes,
        transfer,
        weight_checks,
        adapter_routes,
        pausing,
        lending,
        info,
    )
    return [module.router for module in modules]
