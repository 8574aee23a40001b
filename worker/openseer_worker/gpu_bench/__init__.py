"""Measures whether drafts pay on a device: vLLM's step times without drafts, with ours and with its own, in minutes.

`openseer bench-gpu` and benchmarks/gpu.py call `main.run`. Read `main`, `options`, `shapes` (models), `plan` (the order
of measurements), `rates`, `device`, `figures` (the file from which an interrupted run resumes), `children` and `forks`
(a process for each engine), `table`, `ratios` (rows for the table of devices). `measure`, `ways`, `stepping`, `fixed`
(drafts of given lengths) and `exactness` run in the engines' processes. The package needs only vLLM, numpy, pydantic,
msgspec and openseer's core, draft and worker: a machine with a GPU may have no network. Tests: tests/worker/gpu_bench.
"""
