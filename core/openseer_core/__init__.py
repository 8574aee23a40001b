"""The pure part of openseer: manifest, queue, weights, plan.

It does no I/O (except for reading a table of the package), reads no clock and draws no random number.

Read in this order: `ids`, `numbers`, `hosts`, `tokens`, `token_scores`, `routed_rows`, `errors`, `strict_json`,
`large_json`, `json_model`, `wording`, `chat`; `manifest` (the user's YAML); `json_words` (messages about JSON objects);
`admission` (the limits of a model); `queue` (groups, requests, and their order); `worker` (the fields of a worker's
heartbeat); `model` (the queue's verbs in plain Python); `weights` (the weights transaction); `plan` (the operator's
decisions); `explain` (the use of a run's time); `wire` (the JSON of the HTTP API); `traces` (spans of results). A
module imports only earlier ones. Tests: tests/core.
"""
