"""Drafts for speculative decoding: a suffix automaton per prompt group, and how long a draft pays.

Read `automaton`, `arena` (its memory), `acceptance`, `candidates`, `lengths`, `step`, `drafter`. Tests: tests/draft.
"""
