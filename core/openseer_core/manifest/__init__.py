"""The manifest of a RolloutJob: its typed form, its rules, and its prompts.

Read `job` first, then its parts: `generation`, `fleet`, `speculation`, `failures`. `base` is what all parts share,
`engine_args` names what the engine may not be told, `rules` what several fields must keep to together, `parse` reads a
file and `messages` words its problems. `prompts` are the lines of a source, `sampling_json` and `store_url` what other
parts read of a job. Tests: tests/core/manifest, and tests/crds for the CRD of the same contract.
"""
