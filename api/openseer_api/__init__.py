"""The trainers' API: FastAPI over the store.

Read `app`, `job` (one served job), `routes`, `compat` (routes that trainers speak already), `batch_controller` (what
goes on by itself), `http`, `heap`; for the gateway of a cluster `main` and `cluster`. Tests: tests/api.
"""
