"""Cards and pictures of slices and families."""
