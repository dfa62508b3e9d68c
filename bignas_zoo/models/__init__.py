"""Everything that holds tensors. The first import loads Keras, quietly."""

from bignas_zoo.quiet import load_keras

load_keras()
