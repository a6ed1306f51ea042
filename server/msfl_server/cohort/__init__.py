"""A simulated multi-site MS cohort on real anatomy."""
