"""Lesion segmentation at a site: network input, training, validation."""
