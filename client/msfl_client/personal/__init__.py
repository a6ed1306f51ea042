"""What a hospital has of taking part: its own models beside the shared one, measured on its own patients."""
