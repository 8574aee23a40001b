"""Code that several benchmarks share: the stamp of results, workloads, peers, and simulated clusters.

The commands are one folder up. Each is started as a script, so Python searches its folder first, and imports of this
package have the form `support.<module>`.

- `stamp`: command, date, machine and load, which every results file contains
- `tiny_rollouts`, `synthetic_groups`: prompts and responses, sampled from the tiny model and synthetic
- `rounds`: the order of compared arms, and the interval of a ratio
- `drafters`: the compared drafters and policies of draft lengths, ours and the peers'
- `control_plane`, `played_workers`, `operator_metrics`: a Kubernetes API with simulated nodes, workers and drivers, and
  the operator's metrics
"""
