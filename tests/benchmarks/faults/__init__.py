"""Faults that give wrong results without a word: how many are right, refused or said."""
