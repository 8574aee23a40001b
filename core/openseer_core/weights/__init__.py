"""How the whole fleet moves to new weights, or back.

Read `publish` (what a publisher asks for), `fleet_spec` (the one record that the fleet follows), `versions` (what may
be sampled from), `adapters` (which of them have a place, and fit), `transaction` (the batch controller's next step),
`hearing` (who counts as silent), `loaded` (who has what the fleet serves), `worker_step` (a worker's next step),
`canary` (whether the weights are the publisher's).
Tests: tests/core/weights.
"""
