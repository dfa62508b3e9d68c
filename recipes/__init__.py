"""Recipes (YAML) and the training engine that follows them."""
