"""Editing launch commands: the words that must change, and no others."""
