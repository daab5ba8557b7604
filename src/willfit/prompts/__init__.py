"""Prompts in files, and how many tokens a model makes of them."""
