"""Code that several benchmarks share: the stamp of results, workloads, peers, and simulated clusters.

The commands lie one folder up; each is started as a script, whose own folder Python searches first, and imports from
here as `support.<module>`.

- `stamp`: command, date, machine and load, as they stand in every results file
- `tiny_rollouts`, `synthetic_groups`: prompts and responses, sampled from the tiny model and made up
- `rounds`: in which order arms run that are measured side by side, and how sure a ratio is
- `drafters`: drafters and policies of draft lengths that are measured side by side, ours and the peers'
- `control_plane`, `played_workers`, `operator_metrics`: a Kubernetes API with played nodes, workers and drivers, and
  what the operator reports meanwhile
"""
