"""Solving backwards and searching: what to run, on what, and how far it goes."""
