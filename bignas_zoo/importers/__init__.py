"""Weights of others: read without running anything of theirs, named as the plan names them, with their licence."""
