"""Everything that holds tensors."""
