"""Exact bytes for a shape in each number format, and the recipes that mix formats in one checkpoint."""
