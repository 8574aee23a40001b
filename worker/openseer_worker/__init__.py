"""A worker: one engine, and the loop that claims requests for it and stores their tokens.

A response needs minutes of GPU time. Meanwhile the store may be unreachable for seconds, the worker may die, and a
request that should run earlier may arrive. So a worker holds every request on a lease. One event loop (`loop.Worker`)
has two sides, which share the running requests (`running.RunningRequests`):

* The engine's side reads the engine's outputs every `checkpointSeconds`, and decides at the end of each quantum which
  requests continue. It never awaits the store. So it can abort responses while the store is unreachable, and the engine
  stays within its KV blocks.
* The store's side repeats one pass: heartbeat if due → next step of the weights transaction → report ended requests →
  claim while there is room → checkpoint if due → sleep until the next due time or a wake-up. A checkpoint (`extend`) is
  one call for all running requests: it appends their new tokens, renews their leases and returns the fleet's load. If a
  checkpoint is late by an interval, it is sent before the claims: a claim ends expired leases in the store, and they
  may be this worker's own.

Example: 64 responses generate 40 tokens/s each; checkpointSeconds is 0.25, leaseSeconds 10. Each `extend` appends
64 × 10 tokens. If `extend` takes 40 ms, the interval grows to 0.4 s, so that calls take a tenth of the time (`pace`).
If the store is unreachable for 3 s, the engine continues; the next call appends 64 × 120 tokens and no lease is lost,
since 3 s < 10 s. If the worker is killed, its requests return to the queue after 10 s, or at the first heartbeat of its
next boot. Another worker resumes them from the last checkpoint. It samples again the tokens that each response had
generated since then: up to 10, or 80 at the longest interval of 2 s.

So a death costs each response at most the tokens of one interval and of the duration of one call. A write under an
ended lease changes nothing, because the store compares its fence.

Seer's chunk is the quantum here: at its end a request continues on its worker unless the decision gives it back. A
*chunk* in this code is one lease, which may last several quanta.

Read `engine` (the engine's interface), `loop`, `running` (the requests of a worker), `arrivals` (when it claims),
`pace` (the interval of checkpoints), `engine_requests` (from a lease to the engine's request), `sharing` (tokens of
siblings), `weights`, `hardware`. Probes and metrics: `health`, `draft_metrics`. Start: `settings`, `startup`,
`engine_factory`, `main`, `fork_server`, `gang` and `follower`. Engines: `vllm` and `scripted`. `gpu_bench` measures
whether drafts pay on a device.
Tests: tests/worker.
"""
