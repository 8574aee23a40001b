"""A rollout on a virtual clock: the product's own queue, policies and quanta on engines in closed form.

Read `work`, `engine`, `drafts`, `fleet`, `divided`, `whole_groups`, `systems`; for runs that took place `profile`,
`recorded`, `bound`, `replay`; for jobs to come `history`, `planning`. Tests: tests/sim, tests/store.
"""
