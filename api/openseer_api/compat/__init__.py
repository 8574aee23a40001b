"""The compatible routes: those of vLLM, OpenAI and SGLang that trainers use, implemented over batches.

Read `live` (live requests and batches, which all generating routes use), then the folder of each protocol: `openai`,
`vllm`, `sglang`. `control` has the control routes of vLLM and SGLang. Tests: tests/api/compat.
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
"""Paths of generating routes, whose bodies may contain many prompts."""


def compatible_routers() -> list[APIRouter]:
    """Returns the routers of all compatible routes."""
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
