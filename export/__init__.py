"""Exporters: a network to a file for the device, and the proof that both are equal."""
