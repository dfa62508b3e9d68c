"""Slices on the Hugging Face Hub: `push`, and `get`, `load` and `list` of ``hf://ORG/NAME``."""
