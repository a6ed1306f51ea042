"""Differential privacy at a site: noise of its own, what it has spent on its patients, and steps that bound each."""
