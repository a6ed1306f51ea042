"""A site's contributions to models of features: sums, layers, trees."""
