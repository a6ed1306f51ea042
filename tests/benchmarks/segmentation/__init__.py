"""Segmentation: what its training loop costs, and how soon it is good."""
