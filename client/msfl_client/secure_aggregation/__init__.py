"""A site's part in sums under masks: its keys, the rosters that its people confirm, what it has sent and opened."""
