"""What one can do: one file a verb."""
