"""Drafts for speculative decoding: a suffix automaton per prompt group, and the choice of draft lengths.

Read `automaton`, `arena` (the automata's memory), `acceptance`, `candidates`, `lengths`, `step`, `drafter`; `compiled`
and `warm` compile them. Tests: tests/draft.
"""
