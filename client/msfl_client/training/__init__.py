"""A round of training at a site, whatever is trained: the steps, their rates, and what a strategy changes in them."""
