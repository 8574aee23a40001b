"""Simulates rollouts on a virtual clock: the product's own queue, policies and quanta, on engines in closed form.

Read `work`, `engine`, `drafts`, `fleet`, `outcome`, `divided`, `whole_groups`, `systems`; for recorded runs `profile`,
`recorded`, `bound`, `replay`; for plans of jobs `history`, `planning`; for systems of papers `published`, `partial`,
`paper`. Tests: tests/sim, tests/store.
"""
