"""What a block of the cache holds for each layer, and how layers share one pool."""
