"""Simulates the evaluation of the Seer paper (arXiv 2511.14617): its workloads and systems, compared with its figures.

Read `figures`, `cases`, `calibration`, `study`, `sensitivity`, `charts`. Tests: tests/sim/paper.
"""
