"""The driver: feeds prompts, writes results, proves and reports the run."""

from importlib.metadata import version

VERSION = version("openseer")
