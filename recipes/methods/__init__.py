"""Training methods: what a step computes."""
