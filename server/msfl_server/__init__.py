"""The part of MSFL that the coordinator runs."""
