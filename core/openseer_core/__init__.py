"""The pure part of openseer: manifest, queue, weights, plan; no I/O, no clock, no chance.

Read in this order: `ids`, `tokens`, `routed_rows`, `errors`, `strict_json`, `large_json`, `json_model`, `wording`,
`chat`; `manifest` (what a user writes); `admission` (what a model allows); `queue` (groups, requests, and the order
they run in); `worker` (what a worker reports); `model` (what the store does with requests, as plain Python); `weights`
(how the fleet moves to new weights); `plan` (what the operator does); `wire` (what crosses HTTP); `traces` (spans of
results). Imports go from the later ones to the earlier ones. Tests: tests/core.
"""
