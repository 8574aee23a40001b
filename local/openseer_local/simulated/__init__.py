"""`openseer simulate` and `openseer plan`: run the simulator and show its results as tables, JSON or plots.

Read `commands`, `replayed`, `plan`, `plot`, `paper`. Tests: tests/local/simulated.
"""
