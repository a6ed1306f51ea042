"""Flower's SuperLink as the coordinator runs it, and all that touches its private parts."""
