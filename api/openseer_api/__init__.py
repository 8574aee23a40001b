"""The trainers' API: FastAPI over the store.

Read `batch_controller` (an overview, and the loop that runs without calls), `app`, `job` (one served job), `routes`,
`compat` (routes of vLLM, OpenAI and SGLang), `http`, `heap`; for the gateway of a cluster `main` and `cluster`. Tests:
tests/api.
"""
