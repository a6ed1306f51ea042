"""The one way out of a site, and the record of what has left by it."""
