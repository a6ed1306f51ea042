"""A site's part of ComBat over scanners."""
