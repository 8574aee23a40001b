"""What the operator does for a job: a pure function of what it sees and what it remembers.

Read `observation` (input), `actions` (output), `plan`, and its parts `workers`, `failures` and `scaling`. Tests:
tests/core/plan, where the transcripts tell it story by story.
"""
