"""Tools of research on one machine; a coordinator of real sites needs none of them."""
