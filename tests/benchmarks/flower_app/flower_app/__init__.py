"""Flower as it comes."""
