"""Networks, models of features, their weights, and trained models on disk."""
