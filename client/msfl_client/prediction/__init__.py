"""Trained models on a folder of patients."""
