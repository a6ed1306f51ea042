"""How the next weights come of the sites' updates."""
