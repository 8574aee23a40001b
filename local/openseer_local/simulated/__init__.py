"""`openseer simulate` and `openseer plan`: run the simulator and show its results as tables, JSON or plots.

Read `replayed`, `plan`, `plot`. Tests: tests/local/simulated.
"""
