"""What is reported in papers, on data of the same size."""
