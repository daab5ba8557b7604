"""Programs that are built here: a model from its config, and what is done with it."""
