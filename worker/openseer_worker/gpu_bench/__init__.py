"""Measures whether drafts pay on a device: step times of vLLM without drafts, with ours and its own, in some minutes.

`openseer bench-gpu` and benchmarks/gpu.py call `main.run`. Read `main`, `options`, `shapes` (models), `plan` (the order
of measurements), `rates`, `device`, `figures` (the file from which an interrupted run resumes), `children` and `forks`
(a process for each engine), `table`, `ratios` (rows for the table of devices); in those processes `measure`, `ways`,
`stepping`, `fixed` (drafts of given lengths) and `exactness`. Nothing here needs more than vLLM, numpy, pydantic,
msgspec and openseer's core, draft and worker: a machine with a GPU may have no network. Tests: tests/worker/gpu_bench.
"""
