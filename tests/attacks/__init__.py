"""Attacks on the whole product, each by its name: a hostile coordinator, site, stranger, file, or local account."""
