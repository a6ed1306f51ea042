"""How the repository itself is built: rooms and arrows, extension points, and the way from a change to its test."""
