"""A trace as something to look at: a page, a picture, and a snapshot for PyTorch's own viewer."""
