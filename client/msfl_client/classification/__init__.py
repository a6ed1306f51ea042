"""Prediction of an outcome at a site: models of features, and deep models of visit sequences."""
