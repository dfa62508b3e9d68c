"""Measure and fit the latency table of a device."""
