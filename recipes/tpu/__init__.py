"""What a recipe would need on a TPU, by its compiler."""
