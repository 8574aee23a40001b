"""Drafts for speculative decoding: a suffix automaton per prompt group, and how long a draft pays."""
