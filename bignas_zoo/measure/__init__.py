"""What turns a child into numbers."""

import bignas_zoo.models  # noqa: F401  loads Keras quietly, before anything else does it loudly
