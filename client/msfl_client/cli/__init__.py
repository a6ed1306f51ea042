"""What a site types, and what it is shown."""
