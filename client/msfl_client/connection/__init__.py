"""The site's process in a federation, and its connection to the server."""
