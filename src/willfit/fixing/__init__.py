"""Fixing a launch command that does not fit: the fewest edits with the least loss that make it surely fit."""
