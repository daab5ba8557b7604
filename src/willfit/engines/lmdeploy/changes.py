"""LMDeploy's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "ratio": Words("the cache takes {} by default", ("kv_cache: cache_max_entry_count",)),
    "ratio_of": Words(
        {
            "total": "the cache's share is one of the card's memory",
            "free": "the cache's share is one of what is free once the weights are loaded",
        },
        ("kv_cache",),
    ),
    "batches": Words(
        "the default of max_batch_size depends on the card otherwise",
        ("activations: rows", "cuda_graphs: captured sizes", "recurrent_state: slots"),
    ),
    "reserved_rows": Words(
        "{} rows of logits for each sequence are set aside before the cache", ("kv_cache: set aside",)
    ),
    "reserved_bytes": Words("{} B for each logit are set aside before the cache", ("kv_cache: set aside",)),
    "padding_blocks": Words("{} block is kept for padding", ("needed",)),
    "block": Words("a block of TurboMind's has {} tokens by default", ("kv_cache: blocks",)),
    "token_tables": Words(
        "TurboMind keeps the tokens of all sequences {} times on the card", ("request_tables: sequences",)
    ),
    "tables_before": Words(
        {
            False: "TurboMind's tokens of all sequences come after the cache",
            True: "TurboMind's tokens of all sequences are there when free memory is read",
        },
        ("kv_cache: request_tables",),
    ),
    "index_workspace": Words(
        "{} B are set aside for the scores of an indexer", ("kv_cache: set aside",), ("latents",)
    ),
    "drafts": Words(
        {
            False: "the PyTorch engine does not draft tokens",
            True: "the PyTorch engine has blocks for a draft model",
        },
        ("kv_cache: blocks",),
        ("drafts",),
    ),
    "counts_blocks": Words(
        {
            False: "a cache_max_entry_count above 1 is refused",
            True: "a cache_max_entry_count above 1 is a number of blocks",
        },
        ("kv_cache: blocks",),
    ),
}
