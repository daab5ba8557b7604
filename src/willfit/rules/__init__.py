"""The well-known rules of thumb, each with its own arithmetic."""
