"""Faults of every kind against a deployed study; `make faults` runs them all."""
