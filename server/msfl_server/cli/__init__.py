"""What a coordinator or researcher types."""
