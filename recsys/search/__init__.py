"""Dimension search: which ids of which feature keep rows, and how wide, under a budget of bytes."""
