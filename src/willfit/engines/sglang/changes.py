"""SGLang's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "fraction": Words(
        {
            "by_ranks": "the static share's default comes from a table by ranks",
            "by_class": "the static share's default leaves a reserve that depends on the card",
            "by_activity": "the static share's default leaves room for the prompt's chunk and the graphs",
        },
        ("kv_cache: mem_fraction_static", "state_cache"),
    ),
    "cards": Words(
        "the defaults of chunks and graphs by the card's memory have changed",
        ("activations: tokens", "cuda_graphs: captured sizes"),
    ),
    "prefill_graphs": Words(
        {
            False: "no graphs are captured for prefills",
            True: "the static share also leaves room for graphs of prefills",
        },
        ("kv_cache: mem_fraction_static",),
    ),
    "speculative_mib": Words("{} MiB are left free for speculative decoding", (), ("drafts",)),
    "standalone_mib": Words("{} MiB are left free for a draft model of its own", (), ("drafts",)),
    "windows": Words("more models have a pool of their own for window layers", ("needed",), ("windows",)),
    "checkpoint_kv": Words(
        {
            False: "the cache's dtype does not follow the checkpoint",
            True: "the cache's dtype follows a checkpoint with an 8-bit cache",
        },
        ("needed",),
    ),
    "half_of_tokens": Words(
        {
            False: "the number of requests does not follow from the pool's tokens",
            True: "no more requests run than half of the pool's tokens",
        },
        ("request_table: requests",),
    ),
    "draft_counted": Words(
        {
            False: "a draft is loaded after the pools are sized",
            True: "a draft is loaded before the pools are sized",
        },
        ("kv_cache: draft_weights", "draft_weights"),
        ("drafts",),
    ),
    "reserves_multimodal": Words(
        {
            False: "nothing is kept back for images",
            True: "buffers for images are taken off the pools",
        },
        ("kv_cache: kept for images",),
        ("towers",),
    ),
    "state_padding": Words(
        {
            False: "the pool of states has no slot for padding",
            True: "the pool of states has one more slot for padding",
        },
        ("state_cache: of padding",),
        ("states",),
    ),
    "extra_buffers": Words(
        {
            False: "a request takes no slots of states to track cached prefixes by default",
            True: "a request takes more slots of states to track cached prefixes while batches overlap",
        },
        ("needed",),
        ("states",),
    ),
    "joint_states": Words(
        {
            False: "states of drafted tokens count for all requests that may run",
            True: "states of drafted tokens count for the requests that the pool holds",
        },
        ("state_cache: slots",),
        ("states",),
    ),
    "image_share": Words(
        "the static share of models with an image encoder is multiplied by {} (0: it follows the encoder's size)",
        ("kv_cache: mem_fraction_static",),
        ("towers",),
    ),
    "request_padding": Words(
        "the table of requests has {} rows more than was resolved", ("request_table: requests",)
    ),
    "kernels_in_loading": Words(
        {
            False: "the first kernels are loaded before the weights",
            True: "the first kernels are loaded together with the weights",
        },
        ("weights: B of kernels",),
    ),
    "doubled_scales": Words(
        {
            False: "scales of NVFP4 experts exist once",
            True: "scales of NVFP4 experts exist twice while they are loaded",
        },
        ("weights: B of tensors",),
        ("experts",),
    ),
    "wide_default": Words(
        {
            False: "attention on Blackwell servers runs on FlashInfer's kernels by default",
            True: "attention on Blackwell servers runs on TensorRT-LLM's kernels by default",
        },
        ("runtime: B of attention kernels",),
    ),
    "by_role": Words(
        {
            False: "a disaggregated server reserves what either role needs",
            True: "a disaggregated server reserves what its role needs",
        },
        ("kv_cache: mem_fraction_static",),
    ),
}
