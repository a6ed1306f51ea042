"""The rounds of a study: who takes part, what is asked, what of the answers counts."""
