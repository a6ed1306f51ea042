"""A site's own folder: its settings, key, approved kit, devices."""
