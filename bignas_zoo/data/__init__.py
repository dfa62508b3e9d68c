"""Shipped data: families and their weights (format: docs/FORMAT.md)."""
