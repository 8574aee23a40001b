"""The fleet's weights: publishing a version, and the transaction that moves all workers to it or back.

Read `publish` (the publisher's request), `url`, `digest`, `fleet_spec` (the record that the fleet follows), `reception`
(weights that a trainer sends), `rest` (the sleep of engines), `versions` (the versions that tokens are sampled from),
`adapters` (checks of LoRA adapters), `loaded` (which workers have the served version), `transaction` (the state
machine; the batch controller's next step), `hearing` (the age of heartbeats), `worker_step` (a worker's next step),
`canary` (the comparison with the publisher's scores).
Tests: tests/core/weights.
"""
