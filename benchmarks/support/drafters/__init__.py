"""Drafters and policies of draft lengths that are measured side by side, ours and the peers'."""
