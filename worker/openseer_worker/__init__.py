"""One engine instance: claims requests, generates, records.

Read `engine` (what an engine is), `loop`, `running` (the requests it holds), `arrivals` (when it claims), `pace` (the
interval of checkpoints),
`engine_requests` (what an engine gets),
`sharing` (news of siblings), `weights`, `hardware`; what its pod reports: `health`, `draft_metrics`;
then how it starts: `settings`, `startup`, `engine_factory`, `main`, `fork_server`, `gang` and `follower`; the engines
are `vllm` and `scripted`; `gpu_bench` measures whether drafts pay on a device.
Tests: tests/worker.
"""
