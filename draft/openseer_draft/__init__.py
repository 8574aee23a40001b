"""Drafts for speculative decoding: a suffix automaton per prompt group, and the choice of draft lengths.

Read `automaton`, `arena` (its memory), `acceptance`, `candidates`, `lengths`, `step`, `drafter`. Tests: tests/draft.
"""
