"""The evaluation of the Seer paper (arXiv 2511.14617), simulated: its workloads and systems, beside its figures.

Read `figures`, `cases`, `calibration`, `study`, `sensitivity`, `charts`. Tests: tests/sim/paper.
"""
