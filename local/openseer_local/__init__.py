"""A RolloutJob on one machine: the command `openseer`."""
