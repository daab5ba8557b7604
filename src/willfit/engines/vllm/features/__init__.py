"""What is only there if asked for: adapters, drafts, offloading, sleeping, pooling, other kinds of parallelism."""
