"""Many pipelines on few cases."""
