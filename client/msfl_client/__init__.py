"""The part of MSFL that runs inside a hospital."""
