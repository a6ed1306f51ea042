"""A site's answers to the requests of a study's rounds."""
