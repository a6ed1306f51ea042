"""What can be learned of patients from what leaves, before and after."""
