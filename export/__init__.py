"""Exporters: a plain Keras child to a file for the device, and the proof that both are equal."""

import bignas_zoo.models.backend  # noqa: F401  loads Keras quietly, before anything else does it loudly
