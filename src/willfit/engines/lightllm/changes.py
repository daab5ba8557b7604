"""LightLLM's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "mem_fraction": Words("mem_fraction is {} by default", ("kv_cache: mem_fraction",)),
    "running_max_req_size": Words("running_max_req_size is {} by default", ("request_tables: requests",)),
    "graph_max_batch_size": Words("graph_max_batch_size is {} by default", ("cuda_graphs: captured sizes",)),
    "max_req_total_len": Words("the default of max_req_total_len is {} (None: the model's limit)"),
    "batch_max_tokens": Words("batch_max_tokens is {} by default", ("activations: tokens",)),
    "chunked": Words(
        {
            False: "prompts are not cut into chunks by default",
            True: "prompts are cut into chunks by default",
        },
        ("activations: tokens",),
    ),
    "split_graphs": Words(
        {
            False: "every batch size has a graph",
            True: "graphs of larger batches are captured in steps",
        },
        ("cuda_graphs: captured sizes",),
    ),
    "tables_before": Words(
        {
            False: "request tables come after the slots",
            True: "request tables are there before free memory is read",
        },
        ("kv_cache: request_tables",),
    ),
    "counters": Words(
        {
            False: "request tables have no counters of tokens",
            True: "request tables count the tokens that each request has used",
        },
        ("request_tables: counters",),
    ),
    "encoders_by_default": Words(
        {
            False: "encoders run only if asked for",
            True: "encoders run unless told not to, in a process of their own",
        },
        ("weights: B of encoders", "context: processes"),
        ("towers",),
    ),
    "draft_layers": Words(
        {
            False: "the cache has no layers for a draft model",
            True: "the cache has layers for a draft model that has attention",
        },
        ("kv_cache: tokens",),
        ("drafts",),
    ),
    "paged_transfer": Words(
        {
            False: "what is sent to another node goes through one layer of all slots",
            True: "what is sent to another node goes through pages of all layers",
        },
    ),
    "methods": Words("more kinds of quantized checkpoints are loaded"),
}
