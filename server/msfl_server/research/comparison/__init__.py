"""Two runs side by side: settings that differ, and figures of the same patients."""
