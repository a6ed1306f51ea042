"""What stands for a sex in a table."""

SEX = {"f": 0.0, "female": 0.0, "m": 1.0, "male": 1.0}
