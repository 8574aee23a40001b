"""Routes that trainers speak already, as a thin layer over batches: vLLM's, OpenAI's and SGLang's."""

from fastapi import APIRouter

from openseer_api.compat import info, openai_routes, pausing, sglang_generate, vllm_generate, weight_routes


def compatible_routers() -> list[APIRouter]:
    """All of them."""
    modules = (openai_routes, vllm_generate, sglang_generate, weight_routes, pausing, info)
    return [module.router for module in modules]
