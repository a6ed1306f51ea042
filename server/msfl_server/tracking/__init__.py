"""Aggregates of a run in MLflow, and the server of its pages."""
