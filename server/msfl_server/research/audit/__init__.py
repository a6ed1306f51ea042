"""What attackers can tell from the bytes of a study, measured on simulated patients; each attack is a file of its own.

Legend: N cases, P inputs, Q prepared inputs, M the same with the intercept, S shadow models.
"""
