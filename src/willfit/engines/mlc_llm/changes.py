"""MLC-LLM's eras in words."""

from __future__ import annotations

from willfit.engines.changes import Words

WORDS: dict[str, Words] = {
    "chunk": Words("parts of a prompt have at most {} tokens", ("planned_buffers", "attention_buffers")),
    "batch": Words("a model is compiled for at most {} sequences", ("planned_buffers", "kv_cache")),
    "attention_workspace": Words("FlashInfer's kernels are given {} B", ("workspace",)),
    "tables": Words(
        {
            0: "tables of pages are as large as they have to be",
            134217728: "tables of pages take 134217728 B on NVIDIA's cards",
        },
        ("page_tables",),
    ),
    "depth": Words("tables of pages are kept for {} levels of common prefixes", ("page_tables",)),
    "one_hidden_more": Words(
        {
            True: "the compiler's plan holds one hidden state more",
            False: "the compiler's plan holds no hidden state twice",
        },
        ("planned_buffers",),
    ),
}
