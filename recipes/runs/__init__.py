"""A training run: its folder, checkpoints, log, and what ends it early."""
