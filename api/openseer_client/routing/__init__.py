"""Routed experts for trainers of mixture-of-experts models: arrays, and the forms in which trainers take them.

Read `arrays` (from a result, or from a run's folder), `forms` (verl, slime, NeMo-RL, prime-rl, Megatron), `replay`
(torch: a model that takes the experts it is given). Tests: tests/client/routing.
"""
