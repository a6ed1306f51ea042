"""How much the answers of a site may tell of its patients."""
