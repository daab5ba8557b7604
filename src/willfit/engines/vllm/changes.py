"""vLLM's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "generation": Words(
        {"v0": "the V0 engine runs", "v1": "the V1 engine runs"},
        ("activations", "cuda_graphs"),
    ),
    "utilization": Words(
        "the budget is {:.2f} of a device by default", ("kv_cache: gpu_memory_utilization",)
    ),
    "activation": Words(
        {
            "prefill": "the profile run ends with a row of logits for each sequence",
            "sampler": "the profile run's sampler sorts whole vocabularies",
            "fused": "the profile run's sampler leaves no sorted copies",
        },
        ("activations: logits",),
    ),
    "context_inside": Words(
        {
            False: "the driver context does not count against the budget",
            True: "the driver context counts against the budget",
        },
        ("kv_cache: context",),
    ),
    "graphs_inside": Words(
        {
            False: "CUDA graphs come on top of the budget",
            True: "an estimate of the CUDA graphs is taken off the budget before the cache is sized",
        },
        ("kv_cache: cuda_graphs", "cuda_graphs: B that the engine expects beyond"),
    ),
    "v2_estimates_graphs": Words(
        {
            False: "the V2 runner takes no estimate of its graphs off the budget",
            True: "the V2 runner takes an estimate of its graphs off the budget",
        },
        ("kv_cache: cuda_graphs",),
    ),
    "flashinfer": Words(
        {
            "never": "FlashInfer does not sample unless asked to",
            "if_installed": "FlashInfer samples if it is installed",
            "by_default": "FlashInfer samples by default",
        },
        ("activations: logits",),
    ),
    "rehearses_sampler": Words(
        {
            False: "the V2 runner profiles sampling without its parameters",
            True: "the V2 runner profiles sampling with all its parameters",
        },
        ("activations: logits",),
    ),
    "nccl_inside": Words(
        {
            False: "NCCL's first buffers do not count against the budget",
            True: "NCCL's first buffers count against the budget",
        },
    ),
    "whole_account": Words(
        {
            False: "buffers beside the model do not count against the budget",
            True: "buffers beside the model count against the budget",
        },
        ("kv_cache: buffers",),
    ),
    "window_groups": Words(
        {
            False: "window layers keep whole sequences",
            True: "window layers have cache groups of their own",
        },
        ("needed",),
        ("windows",),
    ),
    "chunked_groups": Words(
        {
            False: "chunked layers keep whole sequences",
            True: "chunked layers have cache groups of their own",
        },
        ("needed",),
        ("windows",),
    ),
    "scratch_kept": Words(
        {
            False: "scratch space of experts is freed after each layer",
            True: "scratch space of experts is one buffer that stays",
        },
        ("activations: B of scratch space that stays",),
        ("experts",),
    ),
    "expert_chunk": Words(
        {
            32768: "experts take at most 32,768 tokens at once",
            16384: "experts take at most 16,384 tokens at once",
            0: "experts take all tokens of a batch at once",
        },
        ("activations: B of scratch space that stays",),
        ("experts",),
    ),
    "rehearses_latents": Words(
        {
            False: "the profile run leaves out the latents of long prompts",
            True: "the profile run allocates what the latents of long prompts will take",
        },
        ("activations",),
        ("latents",),
    ),
    "index_rows": Words(
        "the sparse indexer gathers the keys of {} prompts at once", ("activations",), ("latents",)
    ),
    "rehearses_index": Words(
        {
            False: "the profile run leaves out the sparse indexer's logits",
            True: "the profile run allocates the sparse indexer's logits",
        },
        ("activations",),
        ("latents",),
    ),
    "capacity": Words(
        {
            "blocks": "the reported tokens are blocks times block size",
            "per_group": "the reported tokens are divided by the number of cache groups",
            "concurrency": "the reported tokens are concurrency times context",
        },
        ("reported",),
    ),
    "group_slack": Words(
        {
            1.0: "cache groups are as large as the rarest kind of layer",
            1.25: "cache groups may be padded by up to a quarter",
            1.5: "cache groups may be padded by up to a half",
        },
        ("needed",),
        ("windows", "states"),
    ),
    "in_flight": Words(
        {
            False: "window layers hold one batch beside their window",
            True: "window layers hold all tokens in flight beside their window",
        },
        ("needed",),
        ("windows",),
    ),
    "state_caching": Words(
        {
            False: "state layers cache no prefixes by default",
            True: "state layers cache prefixes by default",
        },
        ("needed",),
        ("states",),
    ),
    "checkpoint_blocks": Words(
        {
            False: "state layers keep no block more for prefix caching",
            True: "state layers keep one more block for prefix caching",
        },
        ("needed",),
        ("states",),
    ),
    "null_block": Words(
        {
            False: "the block that is never handed out counts as room",
            True: "the block that is never handed out does not count as room",
        },
        ("needed",),
    ),
    "plans_source_by_batch": Words(
        {
            False: "cross-attention is planned for the encoder's positions",
            True: "cross-attention is planned for as many positions as a batch has tokens",
        },
        ("needed",),
    ),
    "sparse_capture": Words(
        {
            False: "CUDA graphs are captured at every 8th size above 256",
            True: "CUDA graphs are captured at every 16th size above 256",
        },
        ("cuda_graphs: captured sizes",),
    ),
    "plain_maxima": Words(
        {
            False: "block maxima of bitsandbytes weights stay as they are stored",
            True: "block maxima of bitsandbytes weights are held in fp32",
        },
        ("weights",),
    ),
    "interleaved_table": Words(
        {
            4: "rotary tables of interleaved multi-axis positions are four times as long as the context",
            1: "rotary tables of interleaved multi-axis positions are as long as the context",
        },
        ("weights",),
    ),
    "packed_pages": Words(
        {
            "tuples": "blocks of compressed attention have as many pages of each size",
            "sizes": "blocks of compressed attention have as many pages of a size as any group needs",
            "groups": "blocks of compressed attention are as wide as the widest group",
        },
        ("needed",),
        ("latents",),
    ),
    "captured": Words(
        {
            "grid": "CUDA graphs are captured for a grid of sizes",
            "batch": "CUDA graphs are captured for the largest batch, too",
            "decode": "CUDA graphs are captured for batches of speculative decoding, too",
            "sequences": "CUDA graphs are captured for the largest number of sequences, too",
        },
        ("cuda_graphs: captured sizes",),
    ),
}
