"""One run, from its first round to its report."""
