"""One module per engine: what it allocates, by version."""
