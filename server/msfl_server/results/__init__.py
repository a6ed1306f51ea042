"""What a run measured, as figures."""
