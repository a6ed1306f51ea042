"""What a researcher types: everything on one machine. A coordinator needs none of it, and its installation lacks it."""
