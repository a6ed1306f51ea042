"""Measured features of a case: tissues, lesions, texture, atlas regions."""
