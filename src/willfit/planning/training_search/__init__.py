"""Which way to train a model: schemes of sharding, checkpointing and batches on devices, judged and ranked."""
