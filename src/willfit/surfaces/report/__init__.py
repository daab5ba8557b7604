"""Estimates and facts as people see them in a terminal. Nothing here computes memory."""
