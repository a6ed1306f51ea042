"""A study's arms side by side: local-only, centralised and each strategy, on the same patients and step budget."""
