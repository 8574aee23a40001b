"""One engine instance: claims requests, generates, records.

The worker loop. A response needs minutes of GPU time. The store may be unreachable for seconds, the worker may die at
any moment, and a better use of the GPU may appear while the response runs. So a worker holds every request on a lease,
and one event loop (`loop.Worker`) has two sides that share only the counts in `running.RunningRequests`:

* The engine's side reads the engine's outputs every `checkpointSeconds`, and decides at the end of each quantum which
  requests go on. It never awaits the store, so the engine stays within its KV blocks while the store is unreachable.
* The store's side repeats one pass: heartbeat if due → next step of the weights → report ended requests → claim while
  there is room → checkpoint if due → sleep until the next due time or a wake-up. A checkpoint (`extend`) is one call
  for all running requests: it appends their new tokens, renews their leases and returns the fleet's load. One that is
  late by an interval precedes the claims, because a claim takes back expired leases, this worker's own included.

Example: 64 responses gain 40 tokens/s each; checkpointSeconds is 0.25, leaseSeconds 10. Each `extend` appends
64 × 10 tokens. If `extend` takes 40 ms, the interval grows to 0.4 s, so that calls take a tenth of the time (`pace`).
If the store is unreachable for 3 s, the engine continues; the next call appends 64 × 120 tokens and loses no lease,
since 3 s < 10 s. If the worker is killed, its requests return to the queue after 10 s, or at the first heartbeat of its
next boot. Another worker resumes them from the last checkpoint, and samples again the tokens that each response had
gained since: up to 10, or 80 at the longest interval of 2 s.

It follows that a death costs a response at most one interval of tokens, and that a write with a stale lease changes
nothing: the store compares its fence. A lease is a chunk of Seer's divided rollout; unlike there, a request does not
stop at the end of a chunk: it goes on unless the decision says otherwise.

Read `engine` (the engine's interface), `loop`, `running` (the requests of a worker), `arrivals` (when it claims),
`pace` (the interval of checkpoints), `engine_requests` (from a lease to the engine's request), `sharing` (tokens of
siblings), `weights`, `hardware`; reports of its pod: `health`, `draft_metrics`; then how it starts: `settings`,
`startup`, `engine_factory`, `main`, `fork_server`, `gang` and `follower`; the engines are `vllm` and `scripted`;
`gpu_bench` measures whether drafts pay on a device.
Tests: tests/worker.
"""
