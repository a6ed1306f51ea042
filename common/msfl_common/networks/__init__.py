"""Networks that segment lesions: for each kind one file with its settings, what fits it, and how it is built.

A new kind is one file here, and one line in `registry`. No other module knows how a network is nested, by how much it
down-samples, or which package it comes from. PyTorch and MONAI are loaded where a network is built, not before.
"""
