"""A RolloutJob on one machine: the command `openseer`."""

from importlib.metadata import version

VERSION = version("openseer")
