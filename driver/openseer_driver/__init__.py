"""The driver: feeds prompts, writes results, proves and reports the run."""
