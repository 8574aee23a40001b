"""The operator: observe → plan → apply."""
