"""The process that receives weights from a trainer, through vLLM's weight transfer.

Read `process`, then `gloo`. openseer_worker.weights.receiving starts it. Tests:
tests/client/trainers/test_transfer.py.
"""
