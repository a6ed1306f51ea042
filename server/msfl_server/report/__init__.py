"""A run's results for people."""
