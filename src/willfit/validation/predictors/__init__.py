"""One module per engine: from a published case to a prediction of what it measured."""
