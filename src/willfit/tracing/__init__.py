"""One real step, byte by byte, on a device that is not there; and the allocator that it would have run on."""
