"""The process that receives weights from a trainer, through vLLM's weight transfer.

Read `process`, then `gloo`. Who starts it: openseer_worker.weights.receiving. Tests:
tests/client/trainers/test_transfer.py.
"""
