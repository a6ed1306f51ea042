"""Joining kits, signatures, and receipts: what one side may believe of the other."""
