"""How the next state of a model of features comes of the sites' contributions."""
