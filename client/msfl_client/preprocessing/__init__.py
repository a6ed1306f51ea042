"""From raw scans to a BIDS derivative in MNI152 space, with quality control."""
