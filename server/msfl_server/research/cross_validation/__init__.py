"""All folds of a study."""
