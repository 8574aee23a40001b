"""Routed experts for trainers of mixture-of-experts models: arrays, and the formats of trainers.

Read `arrays` (from a result, or from a run's folder), `forms` (verl, slime, NeMo-RL, prime-rl, Megatron), `replay`
(torch: makes a model's routers choose given experts). Tests: tests/client/routing.
"""
