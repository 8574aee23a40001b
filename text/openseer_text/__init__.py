"""Converts text to token ids and back: renders prompts, reads responses, and finds stop strings in them.

Read `model_files`, `reading`, `rendering`, `stop_strings`. Driver and API render prompts, workers search for stop
strings. Tests: tests/text.
"""
