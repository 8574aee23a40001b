"""From text to token ids and back: rendering of prompts, and stop strings in responses.

Read `model_files`, `reading`, `rendering`, `stop_strings`. Driver and API render with it, workers search for stop
strings. Tests: tests/text.
"""
