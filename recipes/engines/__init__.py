"""Engines: who computes a step, on which backend and devices."""
