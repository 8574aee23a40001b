"""Routes that trainers speak already, as a thin layer over batches: vLLM's, OpenAI's and SGLang's."""

from fastapi import APIRouter


def compatible_routers() -> list[APIRouter]:
    """All of them."""
    return []
