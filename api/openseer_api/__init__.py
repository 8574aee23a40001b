"""The trainers' API: FastAPI over the store."""
