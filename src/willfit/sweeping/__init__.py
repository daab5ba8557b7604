"""Many questions at once: a grid of options, answered in chunks by processes or by a Ray cluster, into Parquet."""
