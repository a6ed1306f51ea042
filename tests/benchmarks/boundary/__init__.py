"""What the boundary holds against, and what it costs."""
