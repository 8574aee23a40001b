"""The manifest of a RolloutJob: its typed form, its rules, and its prompts.

Read `job` first, then its parts: `generation`, `fleet`, `speculation`, `failures`. `base` is what all parts share,
`engine_args` names what the engine may not be told, `rules` what several fields must keep to together, `home` reads a
leading ~, `parse` reads a file and `messages` words its problems. `prompts` are the rows of a source, `prompt_columns`
how those of a dataset become such, `problems` what is wrong with them; `sampling_json` and `store_url` are what other
parts read of a job. Tests: tests/core/manifest, and tests/crds for the CRD of the same contract.
"""
