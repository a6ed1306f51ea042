"""A site's clinical tables: patients, visits, outcomes, splits."""
