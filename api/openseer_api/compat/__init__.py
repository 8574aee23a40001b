"""Routes that trainers speak already, as a thin layer over batches: vLLM's, OpenAI's and SGLang's."""

from fastapi import APIRouter

from openseer_api.compat.control import info, pausing, weight_routes
from openseer_api.compat.openai import routes as openai_routes
from openseer_api.compat.sglang import generate as sglang_generate
from openseer_api.compat.vllm import generate as vllm_generate


def compatible_routers() -> list[APIRouter]:
    """All of them."""
    modules = (openai_routes, vllm_generate, sglang_generate, weight_routes, pausing, info)
    return [module.router for module in modules]
