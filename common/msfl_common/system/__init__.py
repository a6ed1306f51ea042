"""Files, processes, logs, and what is shown on a terminal."""
