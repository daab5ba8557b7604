"""TGI's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "wiggle": Words("{:.2f} of the memory is used by default", ("kv_cache: TGI_WIGGLE_ROOM",)),
    "share_of": Words(
        {
            "free": "the margin is a share of what is free after the warm-up",
            "total": "the margin is a share of the device's memory",
        },
        ("kv_cache: TGI_WIGGLE_ROOM", "kv_cache: the warm-up's blocks"),
    ),
    "prefill": Words(
        {
            "prompt": "the warm-up has the longest prompt and 50 tokens",
            "fixed": "the warm-up has at most 4096 tokens",
            "compute": "the warm-up has as many tokens as the card computes well",
        },
        ("activations: tokens",),
    ),
    "all_logits": Words(
        {
            False: "the warm-up makes logits of the last tokens only",
            True: "the warm-up makes logits of all tokens",
        },
        ("activations: rows",),
    ),
    "prompt": Words(
        "max_input_length is {} by default (None: it follows from the model)", ("activations: rows",)
    ),
    "length": Words("max_total_tokens is {} by default (None: it follows from the model)"),
    "graphs": Words(
        {False: "no graphs are captured", True: "graphs are captured by default"}, ("cuda_graphs",)
    ),
    "checkpoint_cache": Words(
        {
            False: "the cache's dtype does not follow the checkpoint",
            True: "the cache has 8 bits if the checkpoint asks for it",
        },
        ("needed",),
    ),
    "attention": Words(
        {
            "paged": "attention is paged by default",
            "flashinfer": "attention runs on flashinfer by default",
        },
        ("workspace",),
    ),
}
