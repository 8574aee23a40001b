"""The manifest of a RolloutJob: its typed form, its rules, and its prompts.

Read `job` first, then its parts: `generation`, `fleet`, `speculation`, `failures`. `base` has the shared types,
`engine_args` lists the refused engine arguments, `rules` checks several fields together, `home` expands a leading ~,
`parse` reads a document and `messages` formulates its errors. `prompts` reads the rows of a source, `prompt_columns`
maps the columns of a dataset, `problems` collects errors of rows; other packages use `sampling_json` and `store_url`.
Tests: tests/core/manifest, and tests/crds for the CRD of the same contract.
"""
