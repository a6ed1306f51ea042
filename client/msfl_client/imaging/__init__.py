"""Tools on single images: volumes, grids, registration, bias field, skull stripping."""
