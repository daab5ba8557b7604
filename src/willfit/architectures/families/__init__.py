"""One module per family: from a config to an `Architecture`."""
