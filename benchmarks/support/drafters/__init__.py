"""The compared drafters and policies of draft lengths, ours and the peers'."""
