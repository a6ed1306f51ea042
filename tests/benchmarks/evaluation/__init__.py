"""Strategies, attacks on them, and what they come to."""
