"""Published studies, or anybody's, taken together."""
