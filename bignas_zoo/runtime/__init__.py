"""Exported files on this machine: run, timed and measured in processes of their own, without TensorFlow or Keras."""
