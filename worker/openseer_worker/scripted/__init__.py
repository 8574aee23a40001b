"""The scripted engine: plays given lengths in real or virtual time, without a model.

Read `engine`, `contexts`, `text`, `virtual_time`. Tests: tests/worker/scripted.
"""
