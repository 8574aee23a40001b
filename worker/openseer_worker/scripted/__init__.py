"""The scripted engine: plays given lengths in real or virtual time, without a model.

Read `engine`, `prefix_cache`, `text`, `virtual_time`. Tests: tests/worker/scripted.
"""
