"""Which way to serve a model: every device, count, format, cache and layout judged at once, and ranked."""
