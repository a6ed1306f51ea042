"""Networks that segment lesions."""
