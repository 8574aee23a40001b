"""Routes that trainers speak already, as a thin layer over batches: vLLM's, OpenAI's and SGLang's."""

from fastapi import APIRouter

from openseer_api.compat import openai_routes


def compatible_routers() -> list[APIRouter]:
    """All of them."""
    return [openai_routes.router]
