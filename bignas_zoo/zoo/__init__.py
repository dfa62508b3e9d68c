"""What there is: families, slices and their folders, and which of them fits a budget."""
