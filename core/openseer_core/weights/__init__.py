"""The fleet's weights: publishing a version, and the transaction that moves all workers to it or back.

Read `publish` (the publisher's request), `fleet_spec` (the record that the fleet follows), `versions` (which versions
sample), `adapters` (checks of LoRA adapters), `transaction` (the state machine; the batch controller's next step),
`hearing` (which workers count as silent), `loaded` (which workers have the served version), `worker_step` (a worker's
next step), `canary` (the comparison with the publisher's scores).
Tests: tests/core/weights.
"""
