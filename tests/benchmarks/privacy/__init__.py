"""What an answer tells of a patient, and what hides it."""
