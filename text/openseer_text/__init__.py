"""From text to token ids and back: how prompts are rendered, and where a response's text stops.

Read `model_files`, `reading`, `rendering`, `stop_strings`. Driver and API render with it, workers look for stop
strings. Tests: tests/text.
"""
