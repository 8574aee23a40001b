"""`openseer simulate --replay` and `openseer plan`: what the simulator says, in a terminal, as JSON, as a plot.

Read `replayed`, `plan`, `plot`. Tests: tests/local/simulated.
"""
